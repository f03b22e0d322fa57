//! Images made from static files of this machine: tests pull from no registry.

use crate::output;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs::{copy, create_dir_all, read, read_dir, remove_dir_all, rename, write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The executor's image.
pub const EXECUTOR_IMAGE: &str = "docker.io/argosy/executor:test";
/// Names under which workflows find the image with a shell and the usual small programs.
pub const BUSYBOX_NAMES: [&str; 7] = [
    "docker.io/library/busybox:latest",
    "docker.io/library/busybox:1.36",
    "docker.io/library/alpine:latest",
    "docker.io/library/alpine:3",
    "docker.io/library/alpine:3.7",
    "docker.io/library/alpine:3.23",
    "docker.io/library/debian:bookworm-slim",
];
/// The image of an artifact driver of Argo's, which runs as a user of its own.
pub const DRIVER_IMAGE: &str = "docker.io/argosy/test-driver:test";
/// An image whose program takes no notice of its arguments and does nothing.
pub const PAUSE_NAME: &str = "localhost/pause:1";
const ROOT: &str = "0";
const DRIVER_USER: &str = "4321";

/// Archives of all images, made once per content below the run's cluster folder.
pub fn make(folder: &Path, binaries: &Path, executor: Option<&Path>) -> Result<Vec<PathBuf>> {
    create_dir_all(folder)?;
    let mut archives = vec![
        archive(
            folder,
            "pause",
            &[PAUSE_NAME],
            |root| add(&binaries.join("pause"), &root.join("pause")),
            (&["/pause"], ROOT),
        )?,
        archive(folder, "busybox", &BUSYBOX_NAMES, busybox, (&[], ROOT))?,
    ];
    if let Some(executor) = executor {
        let fill = |root: &Path| add(executor, &root.join("argosy-executor"));
        let started = (["/argosy-executor"].as_slice(), ROOT);
        archives.push(archive(folder, "executor", &[EXECUTOR_IMAGE], fill, started)?);
    }
    Ok(archives)
}

/// The archive of the driver's image: its program, and the libraries of this machine that it is linked with.
pub fn make_driver(folder: &Path, driver: &Path) -> Result<PathBuf> {
    let libraries = output(Command::new("ldd").arg(driver))?;
    let fill = |root: &Path| {
        let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        for library in paths {
            let target = root.join(library.trim_start_matches('/'));
            create_dir_all(target.parent().context("a library lies in a folder")?)?;
            add(Path::new(library), &target)?;
        }
        add(driver, &root.join("driver"))
    };
    archive(folder, "driver", &[DRIVER_IMAGE], fill, (&["/driver"], DRIVER_USER))
}

fn add(source: &Path, target: &Path) -> Result<()> {
    copy(source, target).with_context(|| format!("copy {}", source.display()))?;
    Ok(std::fs::set_permissions(target, PermissionsExt::from_mode(0o755))?)
}

fn busybox(root: &Path) -> Result<()> {
    for folder in ["bin", "etc", "usr/bin", "root", "var/run"] {
        create_dir_all(root.join(folder))?;
    }
    let program = crate::find_program("busybox").context("busybox is not on the path")?;
    add(&program, &root.join("bin/busybox"))?;
    for applet in output(Command::new("busybox").arg("--list"))?.lines().filter(|applet| *applet != "busybox")
    {
        symlink("/bin/busybox", root.join("bin").join(applet))?;
    }
    symlink("/bin/busybox", root.join("usr/bin/env"))?;
    write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    write(root.join("etc/group"), "root:x:0:\nnobody:x:65534:\n")?;
    Ok(())
}

/// One layer, a configuration with its digest, and the list that names both.
fn archive(
    folder: &Path,
    name: &str,
    tags: &[&str],
    fill: impl FnOnce(&Path) -> Result<()>,
    (entrypoint, user): (&[&str], &str),
) -> Result<PathBuf> {
    let work = folder.join(format!("{name}.d"));
    if work.exists() {
        remove_dir_all(&work)?;
    }
    let root = work.join("root");
    create_dir_all(root.join("tmp"))?;
    std::fs::set_permissions(root.join("tmp"), PermissionsExt::from_mode(0o1777))?;
    fill(&root)?;
    output(
        Command::new("tar")
            .arg("-C")
            .arg(&root)
            .args(["--owner=0", "--group=0", "-cf"])
            .arg(work.join("layer.tar"))
            .arg("."),
    )?;
    let digest = hex(&Sha256::digest(read(work.join("layer.tar"))?));
    let config = serde_json::json!({
        "architecture": architecture()?, "os": "linux",
        "config": {"Entrypoint": entrypoint, "User": user, "Env": ["PATH=/usr/local/bin:/bin:/usr/bin:/sbin"]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]},
        "history": [{"created": "2026-01-01T00:00:00Z"}],
    });
    write(work.join("config.json"), config.to_string())?;
    let list = serde_json::json!([{"Config": "config.json", "RepoTags": tags, "Layers": ["layer.tar"]}]);
    write(work.join("manifest.json"), list.to_string())?;
    let archive = folder.join(format!("{name}.tar"));
    let unfinished = folder.join(format!("{name}.tar.part"));
    output(Command::new("tar").arg("-C").arg(&work).arg("-cf").arg(&unfinished).args([
        "config.json",
        "layer.tar",
        "manifest.json",
    ]))?;
    rename(unfinished, &archive)?;
    remove_dir_all(work)?;
    Ok(archive)
}

fn architecture() -> Result<&'static str> {
    Ok(match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no name for images of {other}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Loads an archive into a cluster's containerd.
pub fn load(cluster_folder: &Path, archive: &Path) -> Result<()> {
    let socket = cluster_folder.join("containerd.sock");
    output(Command::new("ctr").arg("-a").arg(socket).args(["-n", "k8s.io", "image", "import"]).arg(archive))
        .map(drop)
}

/// All archives in a folder.
pub fn archives_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
    for entry in read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tar") {
            archives.push(path);
        }
    }
    archives.sort();
    Ok(archives)
}
