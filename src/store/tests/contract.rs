//! What every store must do, checked on each implementation by the same functions.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use argosy_store::{
    Batch, Checkpoint, Cursor, Error, Family, Fault, Kv, MemoryKv, Options, RocksKv, Row, Sync,
};

fn put<K: Kv>(kv: &mut K, family: Family, key: &[u8], value: &[u8], sync: Sync) {
    let mut batch = Batch::new();
    batch.put(family, key, value);
    kv.write(batch, sync).unwrap();
}

fn keys<K: Kv>(kv: &K, family: Family, from: &[u8], to: Option<&[u8]>, limit: usize) -> Vec<Vec<u8>> {
    kv.scan(family, from, to, limit).unwrap().into_iter().map(|(key, _)| key).collect()
}

fn all_rows(checkpoint: &dyn Checkpoint, limit_bytes: usize) -> Vec<Row> {
    let mut cursor = Cursor::default();
    let mut all = Vec::new();
    loop {
        let rows = checkpoint.rows(&mut cursor, limit_bytes).unwrap();
        if rows.is_empty() {
            return all;
        }
        all.extend(rows);
    }
}

fn order_and_ranges<K: Kv>(mut kv: K) {
    assert_eq!(kv.last(Family::State).unwrap(), None);
    let mut sorted: Vec<Vec<u8>> = vec![
        vec![0],
        vec![0, 0],
        vec![0, 255],
        vec![1],
        b"a".to_vec(),
        b"ab".to_vec(),
        vec![127],
        vec![254, 255],
    ];
    for key in sorted.iter().rev() {
        put(&mut kv, Family::State, key, key, Sync::No);
    }
    sorted.sort();
    assert_eq!(keys(&kv, Family::State, b"", None, usize::MAX), sorted);
    assert_eq!(keys(&kv, Family::State, &[0, 0], Some(b"ab"), usize::MAX), sorted[1..5]);
    assert_eq!(keys(&kv, Family::State, &[0, 0], None, 2), sorted[1..3]);
    assert!(keys(&kv, Family::State, b"b", Some(b"a"), usize::MAX).is_empty());
    assert!(keys(&kv, Family::State, b"a", Some(b"a"), usize::MAX).is_empty());
    assert_eq!(kv.last(Family::State).unwrap().unwrap().0, vec![254, 255]);
    assert_eq!(kv.get(Family::State, b"ab").unwrap(), Some(b"ab".to_vec()));
    assert_eq!(kv.get(Family::Blobs, b"ab").unwrap(), None, "families are apart");

    let mut batch = Batch::new();
    batch.delete_range(Family::State, vec![0, 0], b"ab".to_vec());
    batch.delete_range(Family::State, b"z".to_vec(), b"b".to_vec());
    kv.write(batch, Sync::No).unwrap();
    assert_eq!(
        keys(&kv, Family::State, b"", None, usize::MAX),
        [vec![0], b"ab".to_vec(), vec![127], vec![254, 255]]
    );
    let mut batch = Batch::new();
    batch.clear(Family::State);
    batch.put(Family::State, b"kept".to_vec(), b"1".to_vec());
    kv.write(batch, Sync::Yes).unwrap();
    assert_eq!(keys(&kv, Family::State, b"", None, usize::MAX), [b"kept".to_vec()]);
}

fn batches_in_order<K: Kv>(mut kv: K) {
    let mut batch = Batch::new();
    batch.put(Family::State, b"a".to_vec(), b"1".to_vec());
    batch.delete(Family::State, b"a".to_vec());
    batch.put(Family::State, b"b".to_vec(), b"1".to_vec());
    batch.put(Family::State, b"b".to_vec(), b"2".to_vec());
    batch.put(Family::History, b"c".to_vec(), b"".to_vec());
    batch.delete(Family::History, b"never there".to_vec());
    kv.write(batch, Sync::Yes).unwrap();
    assert_eq!(kv.get(Family::State, b"a").unwrap(), None);
    assert_eq!(kv.get(Family::State, b"b").unwrap(), Some(b"2".to_vec()));
    assert_eq!(kv.get(Family::History, b"c").unwrap(), Some(Vec::new()), "an empty value is a value");
}

fn bad_keys<K: Kv>(mut kv: K) {
    for key in [Vec::new(), vec![255], vec![1; 5000]] {
        let mut batch = Batch::new();
        batch.put(Family::State, b"fine".to_vec(), b"".to_vec());
        batch.put(Family::State, key, b"".to_vec());
        assert!(matches!(kv.write(batch, Sync::No), Err(Error::BadKey { .. })));
    }
    assert_eq!(kv.last(Family::State).unwrap(), None, "nothing of a refused batch is there");
}

fn checkpoints<K: Kv>(mut kv: K) {
    for number in 0..100_u8 {
        put(&mut kv, Family::State, &[number], &[number; 50], Sync::No);
        put(&mut kv, Family::Archive, &[number, 1], &[number], Sync::No);
    }
    put(&mut kv, Family::RaftMeta, b"mark", b"7", Sync::No);
    let checkpoint = kv.checkpoint(&[Family::Archive, Family::State]).unwrap();
    let with_marks = kv.checkpoint(&[Family::RaftMeta]).unwrap();
    put(&mut kv, Family::State, &[5], b"changed", Sync::Yes);
    let mut batch = Batch::new();
    batch.clear(Family::Archive);
    kv.write(batch, Sync::No).unwrap();

    let whole = all_rows(checkpoint.as_ref(), usize::MAX);
    assert_eq!(whole.len(), 200);
    assert_eq!((whole[5].family, whole[5].value.clone()), (Family::State, vec![5; 50]));
    assert_eq!(whole[100].family, Family::Archive);
    for limit_bytes in [0, 1, 51, 52, 1000] {
        assert_eq!(all_rows(checkpoint.as_ref(), limit_bytes), whole, "in pieces of {limit_bytes}");
    }
    let mut cursor = Cursor::default();
    assert_eq!(checkpoint.rows(&mut cursor, 510).unwrap().len(), 10);
    assert_eq!(checkpoint.get(Family::State, &[5]).unwrap(), Some(vec![5; 50]));
    assert_eq!(checkpoint.get(Family::RaftMeta, b"mark").unwrap(), None, "not asked for");
    assert_eq!(with_marks.get(Family::RaftMeta, b"mark").unwrap(), Some(b"7".to_vec()));
}

fn rocks(directory: &tempfile::TempDir) -> RocksKv {
    RocksKv::open(directory.path(), &Options::default()).unwrap()
}

#[test]
fn memory_keeps_the_contract() {
    order_and_ranges(MemoryKv::new());
    batches_in_order(MemoryKv::new());
    bad_keys(MemoryKv::new());
    checkpoints(MemoryKv::new());
}

#[test]
fn rocks_keeps_the_contract() {
    let parts: [fn(RocksKv); 4] = [order_and_ranges, batches_in_order, bad_keys, checkpoints];
    for part in parts {
        part(rocks(&tempfile::tempdir().unwrap()));
    }
}

#[test]
fn rocks_is_there_after_opening_again_and_is_open_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut kv = rocks(&directory);
    put(&mut kv, Family::State, b"key", b"value", Sync::No);
    let leftover = kv.checkpoint(&[Family::State]).unwrap();
    let second = RocksKv::open(directory.path(), &Options::default());
    assert!(matches!(second, Err(Error::Locked { .. })), "{:?}", second.err());
    assert_eq!(all_rows(leftover.as_ref(), 10).len(), 1, "the refused opening harmed nothing");
    std::mem::forget(leftover);
    drop(kv);
    let kv = rocks(&directory);
    assert_eq!(kv.get(Family::State, b"key").unwrap(), Some(b"value".to_vec()));
    assert!(!directory.path().join("checkpoints").exists());
    assert!(kv.property("rocksdb.estimate-num-keys") >= 1);
}

#[test]
fn a_crash_loses_a_suffix_of_what_was_not_synced() {
    let mut kv = MemoryKv::new();
    for number in 0..10_u8 {
        put(&mut kv, Family::RaftLog, &[number], b"", Sync::No);
    }
    put(&mut kv, Family::State, b"synced", b"", Sync::Yes);
    for number in 10..20_u8 {
        put(&mut kv, Family::RaftLog, &[number], b"", Sync::No);
    }
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut crashed = kv.clone();
        crashed.crash(seed);
        let left = keys(&crashed, Family::RaftLog, b"", None, usize::MAX);
        let expected: Vec<Vec<u8>> = (0..left.len() as u8).map(|number| vec![number]).collect();
        assert_eq!(left, expected, "a prefix, in order");
        assert!(left.len() >= 10, "what a sync covered stays");
        lengths.insert(left.len());
        crashed.crash(seed + 1);
        assert_eq!(keys(&crashed, Family::RaftLog, b"", None, usize::MAX), left, "what is left is durable");
    }
    assert_eq!(lengths.len(), 11, "every suffix happens");
    assert_eq!(keys(&kv, Family::RaftLog, b"", None, usize::MAX).len(), 20, "a clone is independent");
}

#[test]
fn injected_faults_fail_writes_until_a_crash() {
    for fault in [Fault::DiskFull, Fault::WrittenThenFailed] {
        let mut kv = MemoryKv::new();
        kv.fail_after(1, fault);
        put(&mut kv, Family::State, b"a", b"", Sync::Yes);
        let mut batch = Batch::new();
        batch.put(Family::State, b"b".to_vec(), b"".to_vec());
        assert!(kv.write(batch.clone(), Sync::Yes).is_err());
        assert_eq!(kv.get(Family::State, b"b").unwrap().is_some(), fault == Fault::WrittenThenFailed);
        assert!(kv.write(Batch::new(), Sync::No).is_err());
        kv.crash(0);
        kv.write(batch, Sync::Yes).unwrap();
        assert!(kv.get(Family::State, b"a").unwrap().is_some());
    }
}
