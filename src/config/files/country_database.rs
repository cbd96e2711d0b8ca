//! The database of countries (`geoip.database`): an MMDB file (MaxMind DB, format 2.0), as MaxMind, DB-IP and IPinfo publish them.
//!
//! The file is read whole and turned into sorted ranges of addresses with their countries. So a damaged file shows when it is
//! read, a lookup cannot fail, and all but countries is left out: GeoLite2-City takes little more than GeoLite2-Country.

use std::collections::HashMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::SystemTime;

use ipnet::IpNet;
use maxminddb::{MaxMindDbError, Reader, WithinOptions};
use rustix::fs::OFlags;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::config::report::Diagnostic;
use crate::net::country::Country;
use crate::net::networks::CountryMap;

/// Largest file, in bytes: that of a database of cities is some 70 MB.
const MAX_DATABASE: u64 = 256 * 1024 * 1024;

/// Networks of a valid search tree with one node; of one with N nodes there are at most N times as many, and one more.
const NETWORKS_PER_NODE: usize = 2;

/// A database of countries.
#[derive(Debug)]
pub struct CountryDatabase {
    /// The countries.
    pub countries: CountryMap,
    /// What it calls itself, such as `GeoLite2-Country`.
    pub kind: String,
    /// When it was made.
    pub built: SystemTime,
}

impl CountryDatabase {
    /// Reads a regular file. Never blocks on a pipe.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or has no countries.
    pub fn read(path: &Path) -> Result<CountryDatabase, Diagnostic> {
        let name = path.display();
        let hint = "download it again, or write the path of an MMDB file with countries, such as GeoLite2-Country.mmdb";
        let unreadable = |cause: io::Error| {
            Diagnostic::new(format!("cannot read {name}: {cause}")).hint("check the path and its permissions")
        };
        // Opening a pipe would otherwise wait for its writer.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(Diagnostic::new(format!("cannot read {name}: it is not a regular file")).hint(hint));
        }
        let mut bytes = Vec::with_capacity(metadata.len().min(MAX_DATABASE) as usize);
        file.take(MAX_DATABASE + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_DATABASE {
            return Err(Diagnostic::new(format!("cannot read {name}: it is larger than 256 MiB")).hint(hint));
        }
        CountryDatabase::parse(bytes).map_err(|why| Diagnostic::new(format!("{name} {why}")).hint(hint))
    }

    /// # Errors
    /// What is wrong, as the end of a sentence that names the file.
    fn parse(bytes: Vec<u8>) -> Result<CountryDatabase, String> {
        let reader = Reader::from_source(bytes).map_err(|error| match error {
            MaxMindDbError::InvalidDatabase { .. } => "is no MMDB file, or is damaged".to_owned(),
            error => damaged(&error),
        })?;
        let metadata = reader.metadata();
        let mut found = networks(&reader, "0.0.0.0/0")?;
        found.retain(|(network, _)| matches!(network, IpNet::V4(_)));
        if metadata.ip_version == 6 {
            // The IPv4 part of the tree is gone through by itself.
            found.extend(networks(&reader, "::/0")?.into_iter().filter(|(network, _)| matches!(network, IpNet::V6(_))));
        }
        let countries: CountryMap = found.into_iter().collect();
        if countries.is_empty() {
            return Err(format!("has no country in it: it is a database of type {}", metadata.database_type));
        }
        let built = metadata.build_time().map_err(|error| damaged(&error))?;
        Ok(CountryDatabase { countries, kind: metadata.database_type.clone(), built })
    }
}

fn damaged(error: &MaxMindDbError) -> String {
    format!("is damaged: {error}")
}

/// The networks within another one that have a country.
fn networks(reader: &Reader<Vec<u8>>, within: &str) -> Result<Vec<(IpNet, Country)>, String> {
    // A tree with a circle in it has no end.
    let most = reader.metadata().node_count as usize * NETWORKS_PER_NODE + 1;
    let within = within.parse().map_err(|_| "cannot be searched".to_owned())?;
    let found = reader.within(within, WithinOptions::default()).map_err(|error| damaged(&error))?;
    // Networks share records.
    let mut known: HashMap<usize, Option<Country>> = HashMap::new();
    let mut networks = Vec::new();
    for (count, result) in found.enumerate() {
        let result = result.map_err(|error| damaged(&error))?;
        if count > most {
            return Err("is damaged: its search tree has a circle".to_owned());
        }
        let Some(offset) = result.offset() else { continue };
        let country = match known.get(&offset) {
            Some(country) => *country,
            None => {
                let record: Option<CountryRecord<'_>> = result.decode().map_err(|error| damaged(&error))?;
                *known.entry(offset).or_insert(record.and_then(|record| record.country()))
            }
        };
        let Some(country) = country else { continue };
        let network = result.network().map_err(|error| damaged(&error))?;
        let network = IpNet::new(network.ip(), network.prefix()).map_err(|error| format!("is damaged: {error}"))?;
        networks.push((network.trunc(), country));
    }
    Ok(networks)
}

/// What is read of a record: `country.iso_code` of MaxMind and DB-IP, `country_code` or `country` of IPinfo.
#[derive(Deserialize)]
struct CountryRecord<'a> {
    #[serde(borrow, default)]
    country: Option<CountryField<'a>>,
    #[serde(borrow, default)]
    country_code: Option<&'a str>,
}

impl CountryRecord<'_> {
    fn country(&self) -> Option<Country> {
        let code = self.country_code.or(self.country.as_ref().and_then(|field| field.0));
        code.and_then(Country::of_letters)
    }
}

/// A map with `iso_code`, or the code itself.
struct CountryField<'a>(Option<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for CountryField<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<CountryField<'a>, D::Error> {
        struct FieldVisitor;

        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = CountryField<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a country")
            }

            fn visit_borrowed_str<E>(self, code: &'de str) -> Result<CountryField<'de>, E> {
                Ok(CountryField(Some(code)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<CountryField<'de>, A::Error> {
                let mut code = None;
                while let Some(key) = map.next_key::<&str>()? {
                    match key {
                        "iso_code" => code = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(CountryField(code))
            }
        }

        deserializer.deserialize_any(FieldVisitor)
    }
}

#[cfg(test)]
#[path = "../../../tests/support/mmdb.rs"]
mod mmdb;

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::mmdb::{Mmdb, map, text, unsigned};
    use super::*;

    fn countries(bytes: Vec<u8>, addresses: &[&str]) -> Vec<Option<String>> {
        let database = CountryDatabase::parse(bytes).unwrap();
        let country = |address: &&str| database.countries.get(address.parse().unwrap());
        addresses.iter().map(|address| country(address).map(|country| country.to_string())).collect()
    }

    fn known(code: &str) -> Option<String> {
        Some(code.to_owned())
    }

    #[test]
    fn countries_of_both_families_in_each_size_of_record() {
        for bits in [24, 28, 32] {
            let both = Mmdb::new(true).record_size(bits);
            let both =
                both.country("127.0.1.0/24", "DE").country("2001:db8::/32", "AT").country("2001:db8:1::/48", "CH");
            let found = countries(
                both.to_bytes(),
                &["127.0.1.7", "::ffff:127.0.1.7", "127.0.2.7", "2001:db8::1", "2001:db8:1::1", "2001:db9::"],
            );
            assert_eq!(found, [known("DE"), known("DE"), None, known("AT"), known("CH"), None], "{bits} bits");
            let v4 = Mmdb::new(false).record_size(bits).country("127.0.1.0/24", "DE");
            assert_eq!(countries(v4.to_bytes(), &["127.0.1.7", "127.0.2.7", "::1"]), [known("DE"), None, None]);
        }
    }

    #[test]
    fn layouts_of_other_publishers_are_read_and_other_codes_are_not() {
        let network = "10.0.0.0/8";
        let of = |value: Vec<u8>| {
            let database = Mmdb::new(false).country("11.0.0.0/8", "FR").value(network, value);
            countries(database.to_bytes(), &["10.1.2.3"]).remove(0)
        };
        assert_eq!(of(map(&[("country", text("DE"))])), known("DE"));
        assert_eq!(of(map(&[("country", text("Germany")), ("country_code", text("DE"))])), known("DE"));
        assert_eq!(of(map(&[("country", text("Germany"))])), None);
        assert_eq!(of(map(&[("country", map(&[("iso_code", text("de"))]))])), None);
        assert_eq!(of(map(&[("registered_country", map(&[("iso_code", text("DE"))]))])), None);
        assert_eq!(of(map(&[("country", map(&[("names", map(&[("en", text("Germany"))]))]))])), None);
    }

    #[test]
    fn unusable_files_are_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("country.mmdb");
        let message = |path: &Path| CountryDatabase::read(path).unwrap_err().message;
        let of = |content: &[u8]| {
            fs::write(&path, content).unwrap();
            message(&path).strip_prefix(&format!("{} ", path.display())).unwrap().to_owned()
        };
        let good = Mmdb::new(true).country("127.0.1.0/24", "DE").to_bytes();
        assert_eq!(of(b""), "is no MMDB file, or is damaged");
        assert_eq!(of(&good[..good.len() / 2]), "is no MMDB file, or is damaged");
        let other = Mmdb::new(true).value("10.0.0.0/8", map(&[("autonomous_system_number", unsigned(6, 1))]));
        assert_eq!(of(&other.to_bytes()), "has no country in it: it is a database of type Test-Country");
        let wrong = Mmdb::new(true).value("10.0.0.0/8", map(&[("country", unsigned(6, 1))]));
        assert!(of(&wrong.to_bytes()).starts_with("is damaged: "));
        fs::write(&path, &good).unwrap();
        assert_eq!(CountryDatabase::read(&path).unwrap().kind, "Test-Country");

        let pipe = folder.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(message(&pipe).ends_with("it is not a regular file"));
        assert!(message(folder.path()).ends_with("it is not a regular file"));
        assert!(message(&folder.path().join("none")).ends_with("No such file or directory (os error 2)"));
    }

    proptest! {
        /// A damaged file is refused or read; it neither panics nor runs without an end.
        #[test]
        fn damage_is_survived(place: prop::sample::Index, byte: u8, cut: prop::sample::Index, cuts: bool) {
            let mut bytes = Mmdb::new(true).country("127.0.1.0/24", "DE").country("2001:db8::/32", "AT").to_bytes();
            let place = place.index(bytes.len());
            bytes[place] = byte;
            if cuts {
                bytes.truncate(cut.index(bytes.len()));
            }
            let _ = CountryDatabase::parse(bytes);
        }
    }
}
