use crate::{Error, Family};

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;

/// The key behind every key of a family.
pub(crate) const FAMILY_END: &[u8] = &[0xff];

/// One change of a [`Batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a row.
    Put {
        /// Family of the row.
        family: Family,
        /// Its key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes a row, if it is there.
    Delete {
        /// Family of the row.
        family: Family,
        /// Its key.
        key: Vec<u8>,
    },
    /// Removes the rows with `from <= key < to`.
    DeleteRange {
        /// Family of the rows.
        family: Family,
        /// First key to remove.
        from: Vec<u8>,
        /// First key to keep.
        to: Vec<u8>,
    },
}

/// Changes that are written together, in their order: a later one wins over an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    changes: Vec<Change>,
    bytes: usize,
}

impl Batch {
    /// A batch without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a row.
    pub fn put(&mut self, family: Family, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len();
        self.changes.push(Change::Put { family, key, value });
    }

    /// Removes a row, if it is there.
    pub fn delete(&mut self, family: Family, key: impl Into<Vec<u8>>) {
        let key = key.into();
        self.bytes += key.len();
        self.changes.push(Change::Delete { family, key });
    }

    /// Removes the rows with `from <= key < to`; nothing if `from >= to`.
    pub fn delete_range(&mut self, family: Family, from: impl Into<Vec<u8>>, to: impl Into<Vec<u8>>) {
        let (from, to) = (from.into(), to.into());
        if from < to {
            self.bytes += from.len() + to.len();
            self.changes.push(Change::DeleteRange { family, from, to });
        }
    }

    /// Removes every row of a family.
    pub fn clear(&mut self, family: Family) {
        self.delete_range(family, Vec::new(), FAMILY_END);
    }

    /// The changes, in order.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Refuses keys that one of the implementations could not hold.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for change in &self.changes {
            let (family, key) = match change {
                Change::Put { family, key, .. } | Change::Delete { family, key } => (*family, key),
                Change::DeleteRange { .. } => continue,
            };
            if key.is_empty() || key.len() > KEY_BYTES_MAX || key[0] == FAMILY_END[0] {
                return Err(Error::BadKey { family, bytes: key.len() });
            }
        }
        Ok(())
    }
}
