//! Deserialization and schema of the [scalars](super::scalars) and a few special values.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Unexpected, Visitor};

use super::located::{Located, OneOrMany};
use super::report::Diagnostic;
use super::scalars::{
    AccessTarget, BackendEndpoint, BackendHttp, BindAddress, ByteCount, ByteRate, ClientPattern, CookieName,
    CountryCode, FileMode, FilePath, FilePattern, Frequency, HostRule, MethodName, MinVersion, NameRule, Network,
    PathPrefix, Percent, Period, ProtocolName, RetryReason, ServerName, Size, SourceAddress, StatusRange, TrustedBy,
    WholePath,
};

/// A whole number; [`check`](super::check) knows its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Int(pub(crate) i64);

/// `auto`, or a number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    Auto,
    Count(i64),
}

/// `auto` or a boolean, also written `on` and `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    Auto,
    On,
    Off,
}

/// Parses a scalar by [`FromStr`]. A number is passed as its digits: `5` is a duration without a unit, `200` a status.
struct FromStrVisitor<T> {
    expected: &'static str,
    word: PhantomData<T>,
}

impl<T: FromStr<Err = Diagnostic>> Visitor<'_> for FromStrVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }
}

/// The hint is what follows the message's end of line.
fn custom<E: de::Error>(diagnostic: Diagnostic) -> E {
    match diagnostic.hint {
        Some(hint) => E::custom(format_args!("{}\n{hint}", diagnostic.message)),
        None => E::custom(diagnostic.message),
    }
}

/// Implements [`Deserialize`] by [`FromStrVisitor`], and the schema.
macro_rules! word {
    ($type:ty, $expected:literal, $schema:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(FromStrVisitor { expected: $expected, word: PhantomData })
            }
        }

        schema!($type, $schema);
    };
}

/// As `word!`, for types that are never a number.
macro_rules! text {
    ($type:ty, $schema:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(FromStrVisitor { expected: "text", word: PhantomData })
            }
        }

        schema!($type, $schema);
    };
}

macro_rules! schema {
    ($type:ty, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

word!(Period, "a duration such as 5s", { "type": "string", "pattern": "^[0-9]+(ms|s|m|h)$" });
word!(Frequency, "a rate such as 20/s", {
    "type": ["string", "integer"],
    "pattern": "^(0|[0-9]+/[smh])$",
    "minimum": 0,
    "maximum": 0,
});
word!(ByteRate, "a bandwidth such as 10MiB/s", {
    "type": ["string", "integer"],
    "pattern": "^(0|[0-9]+(B|KiB|MiB|GiB)/s)$",
    "minimum": 0,
    "maximum": 0,
});
word!(ByteCount, "a size such as 16MiB", {
    "type": ["string", "integer"],
    "pattern": "^(0|[0-9]+(B|KiB|MiB|GiB))$",
    "minimum": 0,
    "maximum": 0,
});
word!(Size, "a size such as 64KiB", { "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" });
word!(Percent, "a percentage such as 50%", { "type": "string", "pattern": "^(100|[0-9]{1,2})%$" });
word!(StatusRange, "a range of HTTP statuses such as 200-399", {
    "type": ["string", "integer"],
    "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$",
    "minimum": 100,
    "maximum": 599,
});
word!(BindAddress, "an address such as 0.0.0.0:8080", {
    "type": "string",
    "pattern": "^(unix:/.+|(\\[[0-9a-fA-F:.]+(%[^\\]%]+)?\\]|[0-9.]+):[0-9]+(-[0-9]+)?)$",
    "examples": ["0.0.0.0:8080", "[::1]:8080", "[fe80::1%eth0]:8080", "0.0.0.0:30000-30099", "unix:/run/app.sock"],
});
word!(BackendEndpoint, "an address such as 10.0.0.1:8080", {
    "type": "string",
    "pattern": "^(unix:/.+|(\\[[0-9a-fA-F:.]+(%[^\\]%]+)?\\]|[0-9A-Za-z._-]+):([0-9]+|\\*))$",
    "examples": ["10.0.0.1:5432", "[2001:db8::1]:5432", "db.example:5432", "10.0.0.1:*", "unix:/run/app.sock"],
});
word!(SourceAddress, "an IP address", { "type": "string", "pattern": "^[0-9a-fA-F:.]+$" });
word!(AccessTarget, "off, stderr, a path or a syslog server", {
    "type": ["string", "boolean"],
    "pattern": "^(off|stderr|syslog:/[^/](.*[^/])?|syslog(\\+tcp)?:(\\[[0-9a-fA-F:.]+(%[^\\]%]+)?\\]|[0-9.]+):[0-9]+|(?!syslog[:+]).*/.*[^/])$",
    "not": { "const": true },
    "examples": ["off", "stderr", "/var/log/tidegate/access.log", "syslog:/dev/log", "syslog:10.0.0.9:514", "syslog+tcp:10.0.0.9:601"],
});
word!(MinVersion, "a version of TLS such as \"1.2\"", { "enum": ["1.2", "1.3", 1.2, 1.3] });
word!(BackendHttp, "a version of HTTP: 1.1 or 2", { "enum": ["1.1", "2", 1.1, 2] });
word!(RetryReason, "connect, closed or a status", {
    "enum": ["connect", "closed", "502", "503", "504", 502, 503, 504],
});

text!(ProtocolName, { "type": "string", "minLength": 1, "maxLength": 255 });
text!(NameRule, { "type": "string", "pattern": "^(\\*\\.)?[0-9A-Za-z_.-]+$", "examples": ["www.example.com", "*.example.com"] });
text!(HostRule, { "type": "string", "pattern": "^(\\*\\.)?[0-9A-Za-z_.-]+$", "examples": ["www.example.com", "*.example.com", "10.0.0.1"] });
text!(PathPrefix, { "type": "string", "pattern": "^/[!-~]*$", "examples": ["/api/"] });
text!(WholePath, { "type": "string", "pattern": "^/[!-~]*$", "examples": ["/login"] });
text!(MethodName, { "type": "string", "pattern": "^[0-9A-Z!#$%&'*+.^_`|~-]+$", "examples": ["GET", "POST"] });
text!(CookieName, { "type": "string", "pattern": "^[0-9A-Za-z!#$%&'*+.^_`|~-]+$", "examples": ["backend"] });
text!(ServerName, { "type": "string", "pattern": "^[0-9A-Za-z_.:-]+$" });
text!(FilePath, { "type": "string", "pattern": "[^/]$" });
text!(FilePattern, { "type": "string", "pattern": "^[^\\n]*[^/]$", "examples": ["conf.d/*.yaml"] });
text!(TrustedBy, { "type": "string", "pattern": "[^/]$" });
text!(ClientPattern, { "type": "string", "pattern": "^([0-9a-fA-F:.]+(/[0-9]{1,3})?|country:[A-Z]{2})$", "examples": ["10.0.0.0/8", "::1", "country:DE"] });
text!(CountryCode, { "type": "string", "pattern": "^[A-Z]{2}$", "examples": ["DE"] });
text!(Network, { "type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$", "examples": ["10.0.0.0/8", "::1"] });

schema!(FileMode, { "type": "string", "pattern": "^(0o)?0{0,3}[0-7]{3}$", "examples": ["0600", "0660"] });
schema!(Int, { "type": "integer" });
schema!(Workers, { "type": ["string", "integer"], "pattern": "^auto$", "minimum": 1, "maximum": 1024, "examples": ["auto"] });
schema!(Switch, { "enum": ["auto", true, false, "on", "off"] });

impl<'de> Deserialize<'de> for Int {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntVisitor;

        impl Visitor<'_> for IntVisitor {
            type Value = Int;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }

            fn visit_i64<E>(self, value: i64) -> Result<Int, E> {
                Ok(Int(value))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Int, E> {
                match text.parse::<i64>() {
                    Ok(_) => Err(E::custom("expected a whole number, found text\nremove the quotes")),
                    Err(_) => Err(E::invalid_type(Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(IntVisitor)
    }
}

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ModeVisitor;

        impl Visitor<'_> for ModeVisitor {
            type Value = FileMode;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mode such as \"0600\"")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<FileMode, E> {
                Err(custom(FileMode::number(number)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<FileMode, E> {
                text.parse().map_err(custom)
            }
        }

        deserializer.deserialize_identifier(ModeVisitor)
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WorkersVisitor;

        impl Visitor<'_> for WorkersVisitor {
            type Value = Workers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("auto or a number of threads")
            }

            fn visit_i64<E>(self, value: i64) -> Result<Workers, E> {
                Ok(Workers::Count(value))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Workers, E> {
                match text {
                    "auto" => Ok(Workers::Auto),
                    _ => Err(E::invalid_type(Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(WorkersVisitor)
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchVisitor;

        impl Visitor<'_> for SwitchVisitor {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("auto, true or false")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Switch, E> {
                Ok(if value { Switch::On } else { Switch::Off })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Switch, E> {
                match text {
                    "auto" => Ok(Switch::Auto),
                    "on" => Ok(Switch::On),
                    "off" => Ok(Switch::Off),
                    _ => Err(E::invalid_type(Unexpected::Str(text), &self)),
                }
            }
        }

        deserializer.deserialize_any(SwitchVisitor)
    }
}

/// The schema of the value itself.
impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // Not `anyOf`, whose errors say only that no alternative matches. `items` and `minItems` apply to lists only,
        // the keywords of `one` to strings only.
        let one = generator.subschema_for::<T>();
        let mut either = one.clone();
        either.insert("type".to_owned(), serde_json::json!(["string", "array"]));
        either.insert("items".to_owned(), one.to_value());
        either.insert("minItems".to_owned(), 1.into());
        either
    }
}
