use crate::Family;

/// What can go wrong in the store.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No room, or the quota is used up.
    #[error("the disk of the store is full: free some space, then start the member again ({message})")]
    DiskFull {
        /// What the store said.
        message: String,
    },
    /// Another process has it open.
    #[error("the store at {path} is open in another process: stop that one first")]
    Locked {
        /// Directory of the store.
        path: String,
    },
    /// Written by a newer version.
    #[error("the store has format {found}, this program reads up to {known}: start a newer version")]
    NewerFormat {
        /// Format on disk.
        found: u32,
        /// Newest format this program knows.
        known: u32,
    },
    /// The store of another member or cell.
    #[error(
        "the store belongs to member {found_member} of cell {found_cell:?}, not to member {wanted_member} of cell \
         {wanted_cell:?}: give this member its own data directory"
    )]
    WrongIdentity {
        /// Cell on disk.
        found_cell: String,
        /// Member on disk.
        found_member: u64,
        /// Cell of the configuration.
        wanted_cell: String,
        /// Member of the configuration.
        wanted_member: u64,
    },
    /// Rows that cannot be what was written.
    #[error("the store is damaged: {message}; remove this member's data directory and add the member anew")]
    Damaged {
        /// What was found.
        message: String,
    },
    /// A key that the store does not take.
    #[error("key of {bytes} bytes in family {}: a key has 1 to 4096 bytes and does not begin with 0xff", family.name())]
    BadKey {
        /// Family of the key.
        family: Family,
        /// Length of the key.
        bytes: usize,
    },
    /// Any other failure of the disk.
    #[error("the store failed while {doing}: {message}; look at the disk, then start the member again")]
    Disk {
        /// What was being done.
        doing: String,
        /// What the store or the operating system said.
        message: String,
    },
}
