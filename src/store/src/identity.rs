use prost::Message;

use crate::{Batch, Error, Family, Kv, Sync};

/// The format that this program writes. Raised with every change of what rows mean, together with a migration.
pub const FORMAT_VERSION: u32 = 1;

const KEY: &[u8] = b"identity";

/// Whose store it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the cell.
    pub cell: String,
    /// Number of the member in the cell.
    pub member: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(string, tag = "2")]
    cell: String,
    #[prost(uint64, tag = "3")]
    member: u64,
}

/// Marks an empty store as belonging to `identity`; refuses the store of another member or cell, one with rows but
/// without a mark, and one of a newer format. Returns whether the store was empty. Called before anything else is read.
pub fn claim<K: Kv + ?Sized>(kv: &mut K, identity: &Identity) -> Result<bool, Error> {
    if let Some(bytes) = kv.get(Family::RaftMeta, KEY)? {
        let record = Record::decode(bytes.as_slice())
            .map_err(|error| Error::Damaged { message: format!("its identity cannot be read: {error}") })?;
        return check(&record, identity).map(|()| false);
    }
    for family in Family::ALL {
        if kv.last(family)?.is_some() {
            let message = format!("it has rows in {} but no identity", family.name());
            return Err(Error::Damaged { message });
        }
    }
    let record = Record { format: FORMAT_VERSION, cell: identity.cell.clone(), member: identity.member };
    let mut batch = Batch::new();
    batch.put(Family::RaftMeta, KEY, record.encode_to_vec());
    kv.write(batch, Sync::Yes)?;
    Ok(true)
}

fn check(record: &Record, identity: &Identity) -> Result<(), Error> {
    if record.format > FORMAT_VERSION {
        return Err(Error::NewerFormat { found: record.format, known: FORMAT_VERSION });
    }
    if record.cell != identity.cell || record.member != identity.member {
        return Err(Error::WrongIdentity {
            found_cell: record.cell.clone(),
            found_member: record.member,
            wanted_cell: identity.cell.clone(),
            wanted_member: identity.member,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryKv;

    fn identity(cell: &str, member: u64) -> Identity {
        Identity { cell: cell.to_owned(), member }
    }

    #[test]
    fn the_bytes_of_the_mark_stay() {
        let record = Record { format: 1, cell: "c".to_owned(), member: 2 };
        assert_eq!(record.encode_to_vec(), [0x08, 1, 0x12, 1, b'c', 0x18, 2]);
    }

    #[test]
    fn a_store_keeps_its_owner() {
        let mut kv = MemoryKv::new();
        assert!(claim(&mut kv, &identity("a", 1)).unwrap());
        assert!(!claim(&mut kv, &identity("a", 1)).unwrap());
        for other in [identity("a", 2), identity("b", 1)] {
            let error = claim(&mut kv, &other).unwrap_err();
            assert!(matches!(error, Error::WrongIdentity { .. }), "{error}");
        }
    }

    #[test]
    fn a_newer_format_and_damage_are_refused() {
        let record = Record { format: FORMAT_VERSION + 1, cell: "a".to_owned(), member: 1 };
        for (bytes, newer) in [(record.encode_to_vec(), true), (vec![0xff, 0xff], false)] {
            let mut kv = MemoryKv::new();
            let mut batch = Batch::new();
            batch.put(Family::RaftMeta, KEY, bytes);
            kv.write(batch, Sync::Yes).unwrap();
            let error = claim(&mut kv, &identity("a", 1)).unwrap_err();
            assert_eq!(matches!(error, Error::NewerFormat { .. }), newer, "{error}");
        }
        let mut kv = MemoryKv::new();
        let mut batch = Batch::new();
        batch.put(Family::State, b"row".to_vec(), b"".to_vec());
        kv.write(batch, Sync::Yes).unwrap();
        assert!(matches!(claim(&mut kv, &identity("a", 1)), Err(Error::Damaged { .. })));
    }
}
