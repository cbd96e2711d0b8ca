//! Values that know their place in the file.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use super::tree::NodeId;

/// Newtype names by which the types below request special treatment of `de`. Another deserializer would fail.
pub(super) const LOCATED: &str = "$tidegate::Located";
pub(super) const LIST: &str = "$tidegate::OneOrMany";

/// A value and its place in the tree.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    /// `None` if it could not be read, which is reported.
    pub(crate) value: Option<T>,
    /// Its node.
    pub(crate) at: NodeId,
}

/// A list, or a single value that stands for a list of one.
#[derive(Clone, Debug)]
pub(crate) struct OneOrMany<T>(pub(crate) Vec<Located<T>>);

/// A key that may be absent.
pub(crate) type Field<T> = Option<Located<T>>;

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InPlace<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for InPlace<T> {
            type Value = Located<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value of a configuration file")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut place: A) -> Result<Located<T>, A::Error> {
                let number = place.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                Ok(Located { value: place.next_element()?, at: NodeId::from_number(number) })
            }
        }

        deserializer.deserialize_newtype_struct(LOCATED, InPlace(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Elements<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one value or a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany<T>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = list.next_element()? {
                    elements.push(element);
                }
                Ok(OneOrMany(elements))
            }
        }

        deserializer.deserialize_newtype_struct(LIST, Elements(PhantomData))
    }
}
