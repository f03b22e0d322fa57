//! Files to one stream.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A gzipped tar of a file or directory, under its own name.
pub fn tar(path: &Path, level: Option<u32>, out: impl Write) -> io::Result<()> {
    let level = level.map_or_else(Compression::default, Compression::new);
    let mut builder = tar::Builder::new(GzEncoder::new(out, level));
    builder.follow_symlinks(false);
    let name = name_of(path);
    if path.is_dir() {
        builder.append_dir_all(&name, path)?;
    } else {
        builder.append_file(&name, &mut File::open(path)?)?;
    }
    builder.into_inner()?.finish()?.flush()
}

/// A zip file of a file or directory, under its own name.
pub fn zip(path: &Path, out: impl Write) -> io::Result<()> {
    let mut writer = zip::ZipWriter::new_stream(out);
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated)
        .large_file(true);
    let name = name_of(path);
    let add = |writer: &mut zip::ZipWriter<_>, name: String, file: &Path| -> io::Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let mode = file.metadata()?.permissions().mode();
        writer.start_file(name, options.unix_permissions(mode)).map_err(io::Error::other)?;
        io::copy(&mut File::open(file)?, writer).map(drop)
    };
    if path.is_dir() {
        for file in files_below(path)? {
            add(&mut writer, format!("{name}/{file}"), &path.join(&file))?;
        }
    } else {
        add(&mut writer, name, path)?;
    }
    writer.finish().map_err(io::Error::other)?.flush()
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| "artifact".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The regular files below a directory, by their path in it, in order. Links are not followed.
pub fn files_below(directory: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(inner) = open.pop() {
        for entry in std::fs::read_dir(directory.join(&inner))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let path = inner.join(entry.file_name());
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() || (kind.is_symlink() && directory.join(&path).is_file()) {
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
