//! Limits and namespaces of the container itself.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;

use rustix::mount::{MountFlags, mount};
use rustix::thread::UnshareFlags;

use super::{Failed, Scratch, Step, leads_nowhere, read, write};
use crate::raw;

const CGROUPS: &str = "/sys/fs/cgroup";

/// Lifts the limit of the whole container, and puts it back.
pub(super) fn own_memory_limit() -> Result<(), Failed> {
    let limit = Path::new(CGROUPS).join("memory.max");
    let before = read(&limit, "read")?;
    write(&limit, b"max")?;
    write(&limit, &before)
}

/// Mounts the cgroups anew, from another cgroup namespace. The hierarchy of the whole machine would have no type at its root.
pub(super) fn host_cgroups() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    raw::unshare(UnshareFlags::NEWCGROUP).step("unshare")?;
    let root = scratch.mount("cgroup2")?;
    if root.join("cgroup.type").exists() { leads_nowhere("look at the root") } else { Ok(()) }
}

/// A hierarchy of cgroup v1 names a program that the kernel starts outside of every container.
pub(super) fn release_agent() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let folder = scratch.folder("cgroup")?;
    mount("cgroup", &folder, "cgroup", MountFlags::empty(), c"none,name=kedge-attack").step("mount")?;
    if folder.join("release_agent").exists() { Ok(()) } else { leads_nowhere("look at the root") }
}

/// From the parent of the PID namespace, all processes of the machine are to be seen.
pub(super) fn parent_namespace() -> Result<(), Failed> {
    let own = File::open("/proc/self/ns/pid").step("open")?;
    raw::parent_namespace(own.as_fd()).step("ask for the parent").map(drop)
}

/// More of the kernel is open to whoever is root in a user namespace of their own.
pub(super) fn new_user_namespace() -> Result<(), Failed> {
    raw::unshare(UnshareFlags::NEWUSER).step("unshare")
}
