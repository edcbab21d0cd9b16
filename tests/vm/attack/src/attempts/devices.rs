//! The machine's disk: the one that the volume of the inner engine is on.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{MountFlags, mount, mount_bind, mount_remount};

use super::{Failed, Scratch, Step, leads_nowhere, read};
use crate::raw::{self, DeviceFilters};

/// A volume, and so a folder of the machine's own file system.
const VOLUME: &str = "/var/lib/docker";
/// Where ext4 has its mark, and which one.
const MAGIC: (u64, [u8; 2]) = (1080, [0x53, 0xef]);
/// A file of the machine that the container does not have.
const MARK: &str = "etc/kedge-vm";

/// How the machine's file system is mounted, as its mount in `folder` shows it.
fn super_options(folder: &Path) -> Result<String, Failed> {
    let mounts = read(Path::new("/proc/self/mountinfo"), "read")?;
    let mounts = String::from_utf8_lossy(&mounts).into_owned();
    let line = mounts.lines().rfind(|line| line.split(' ').nth(4).map(Path::new) == Some(folder));
    let options = line.and_then(|line| line.rsplit(' ').next()).unwrap_or_default();
    Ok(options.to_owned())
}

/// Changes how the machine has mounted its own disk, and puts it back.
pub(super) fn host_superblock() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let folder = scratch.folder("volume")?;
    mount_bind(VOLUME, &folder).step("bind")?;
    mount_remount(&folder, MountFlags::empty(), "commit=77").step("remount")?;
    let options = super_options(&folder)?;
    mount_remount(&folder, MountFlags::empty(), "commit=5").step("put it back")?;
    if options.contains("commit=77") { Ok(()) } else { leads_nowhere("look at the options") }
}

/// Opens the root of the file system of which the volume is a part.
pub(super) fn host_file_by_handle() -> Result<(), Failed> {
    let volume = File::open(VOLUME).step("open")?;
    let root = raw::open_root_of(volume.as_fd()).step("open by handle")?;
    let read = rustix::fs::openat(&root, MARK, rustix::fs::OFlags::RDONLY, Mode::empty());
    read.step("open a file").map(drop)
}

/// Is told of every file that anybody on the machine opens, with a descriptor of it.
pub(super) fn watch_host_files() -> Result<(), Failed> {
    raw::watch_file_system(c"/var/lib/docker").step("fanotify").map(drop)
}

/// The nodes of all devices of the machine.
pub(super) fn devtmpfs() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let nodes = scratch.mount("devtmpfs")?;
    if nodes.join("vda").exists() { Ok(()) } else { leads_nowhere("list") }
}

/// Makes the node of the machine's disk.
fn make_node(scratch: &Scratch) -> Result<PathBuf, Failed> {
    let device = std::fs::metadata(VOLUME).step("look at the volume")?.dev();
    let node = scratch.folder("nodes")?.join("disk");
    mknodat(CWD, &node, FileType::BlockDevice, Mode::RUSR, device).step("mknod")?;
    Ok(node)
}

pub(super) fn mknod_host_disk() -> Result<(), Failed> {
    make_node(&Scratch::new()?).map(drop)
}

/// Does something while no program decides which devices this container may use.
fn without_filter<T>(work: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    let cgroup = File::open("/sys/fs/cgroup").step("open the cgroup")?;
    let filters = DeviceFilters::of(cgroup.as_fd()).step("find the device filter")?;
    filters.detach().step("detach the device filter")?;
    let done = work();
    filters.attach().step("put the device filter back")?;
    done
}

pub(super) fn device_filter() -> Result<(), Failed> {
    let cgroup = File::open("/sys/fs/cgroup").step("open the cgroup")?;
    if DeviceFilters::of(cgroup.as_fd()).step("find the device filter")?.number() == 0 {
        // A privileged container may use every device as it is.
        return Ok(());
    }
    without_filter(|| Ok(()))
}

/// Whoever reads the disk as such reads all files of the machine.
pub(super) fn read_host_disk() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let node = make_node(&scratch)?;
    let mut magic = [0; 2];
    without_filter(|| {
        let disk = File::open(&node).step("open the disk")?;
        disk.read_exact_at(&mut magic, MAGIC.0).step("read the disk")
    })?;
    if magic == MAGIC.1 { Ok(()) } else { leads_nowhere("read the disk") }
}

pub(super) fn mount_host_disk() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let node = make_node(&scratch)?;
    let folder = scratch.folder("root")?;
    without_filter(|| mount(&node, &folder, "ext4", MountFlags::empty(), None).step("mount"))?;
    let found = read(&folder.join(MARK), "read a file").map(drop);
    rustix::mount::unmount(&folder, rustix::mount::UnmountFlags::DETACH).step("umount")?;
    found
}
