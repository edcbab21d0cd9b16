//! Settings and inner workings of the machine's kernel.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, UnmountFlags,
    fsconfig_create, fsmount, fsopen, mount, mount_bind, mount_change, mount_move, mount_remount, unmount,
};
use rustix::thread::UnshareFlags;
use rustix::time::{ClockId, clock_gettime, clock_settime};

use super::{Failed, Scratch, Step, leads_nowhere, read, write, write_the_same};
use crate::raw;

/// This lets the kernel write its help into its log. Other letters restart the machine.
const HELP: &[u8] = b"h";
const SYSRQ: &str = "sysrq-trigger";
const CORE_PATTERN: &str = "sys/kernel/core_pattern";
const DISK_SETTING: &str = "block/vda/queue/read_ahead_kb";

pub(super) fn sysrq_direct() -> Result<(), Failed> {
    write(Path::new("/proc/sysrq-trigger"), HELP)
}

/// What engines put over the file is a mount like any other.
pub(super) fn sysrq_unmasked() -> Result<(), Failed> {
    let _own = Scratch::new()?;
    match unmount("/proc/sysrq-trigger", UnmountFlags::DETACH) {
        // Nothing is put over it.
        Err(rustix::io::Errno::INVAL) => {}
        other => other.step("umount")?,
    }
    write(Path::new("/proc/sysrq-trigger"), HELP)
}

pub(super) fn sysrq_fresh_proc() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    write(&scratch.mount("proc")?.join(SYSRQ), HELP)
}

/// Under another name, without what is mounted over it, and where a rule for paths below /proc does not look.
fn bound(scratch: &Scratch, source: &str) -> Result<PathBuf, Failed> {
    let folder = scratch.folder("elsewhere")?;
    mount_bind(source, &folder).step("bind")?;
    Ok(folder)
}

pub(super) fn sysrq_bound_proc() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    write(&bound(&scratch, "/proc")?.join(SYSRQ), HELP)
}

/// Options of which a rule may not think; the kernel passes over most of them when it binds.
const OPTIONS: [MountFlags; 10] = [
    MountFlags::RDONLY,
    MountFlags::NOSUID,
    MountFlags::NODEV,
    MountFlags::NOEXEC,
    MountFlags::SYNCHRONOUS,
    MountFlags::NOATIME,
    MountFlags::RELATIME,
    MountFlags::STRICTATIME,
    MountFlags::SILENT,
    MountFlags::LAZYTIME,
];

/// Tries with each option, and with all of them.
fn with_any_option(try_with: impl Fn(MountFlags) -> Result<(), Failed>) -> Result<(), Failed> {
    let all = OPTIONS.iter().fold(MountFlags::empty(), |all, option| all | *option);
    let mut outcome = try_with(all);
    for option in OPTIONS {
        if outcome.is_ok() {
            break;
        }
        outcome = try_with(option);
    }
    outcome
}

pub(super) fn sysrq_bound_with_options() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let proc = scratch.mount("proc")?;
    let elsewhere = scratch.folder("elsewhere")?;
    with_any_option(|options| {
        mount(&proc, &elsewhere, "", MountFlags::BIND | options, None).step("bind")?;
        write(&elsewhere.join(SYSRQ), HELP)
    })
}

pub(super) fn debugfs_with_options() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let folder = scratch.folder("debugfs")?;
    let outcome = with_any_option(|options| {
        mount("debugfs", &folder, "debugfs", options, None).step("mount")?;
        std::fs::read_dir(folder.join("bdi")).step("list").map(drop)
    });
    // The options are those of the file system itself, wherever it is mounted.
    let _ = mount("debugfs", &folder, "debugfs", MountFlags::empty(), None);
    outcome
}

/// Only the file, of which nothing tells any more that it is one of /proc.
pub(super) fn sysrq_bound_file() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let proc = scratch.mount("proc")?;
    let file = scratch.folder("elsewhere")?.join("file");
    write(&file, b"")?;
    mount_bind(proc.join(SYSRQ), &file).step("bind")?;
    write(&file, HELP)
}

pub(super) fn sysrq_moved_proc() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let proc = scratch.mount("proc")?;
    let elsewhere = scratch.folder("elsewhere")?;
    // What is shared with others cannot be moved.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).step("make private")?;
    mount_move(proc, &elsewhere).step("move")?;
    write(&elsewhere.join(SYSRQ), HELP)
}

/// A file of a mount that was taken off is in no folder, and so has a path of which little is left for a rule to be for.
fn detached(mount: &Path, file: &str, contents: Option<&[u8]>) -> Result<(), Failed> {
    let folder = File::open(mount).step("open the folder")?;
    unmount(mount, UnmountFlags::DETACH).step("umount")?;
    let open = |flags| rustix::fs::openat(&folder, file, flags, Mode::empty()).map(File::from).step("open");
    let contents = match contents {
        Some(contents) => contents.to_vec(),
        None => {
            let mut before = Vec::new();
            open(OFlags::RDONLY)?.read_to_end(&mut before).step("read")?;
            before
        }
    };
    open(OFlags::WRONLY)?.write_all(&contents).step("write")
}

pub(super) fn sysrq_detached_proc() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    detached(&scratch.mount("proc")?, SYSRQ, Some(HELP))
}

pub(super) fn core_pattern_detached_proc() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    detached(&scratch.mount("proc")?, CORE_PATTERN, None)
}

/// As the root, /proc has no name at all.
pub(super) fn sysrq_pivoted_proc() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).step("make private")?;
    let proc = scratch.mount("proc")?;
    rustix::process::chdir(&proc).step("change to the folder")?;
    rustix::process::pivot_root(".", ".").step("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).step("umount")?;
    // Nothing of the scratch folder can be reached from here, and its mounts are in a namespace that ends.
    std::mem::forget(scratch);
    write(&Path::new("/").join(SYSRQ), HELP)
}

pub(super) fn interrupts_bound() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let proc = scratch.mount("proc")?;
    let irq = bound(&scratch, &proc.join("irq").display().to_string())?;
    write_the_same(&irq.join("default_smp_affinity"))
}

pub(super) fn core_pattern_fresh_proc() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    write_the_same(&scratch.mount("proc")?.join(CORE_PATTERN))
}

pub(super) fn core_pattern_bound_proc() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    write_the_same(&bound(&scratch, "/proc")?.join(CORE_PATTERN))
}

pub(super) fn core_pattern_remounted() -> Result<(), Failed> {
    let _own = Scratch::new()?;
    match mount_remount("/proc/sys", MountFlags::BIND, "") {
        // It is no mount of its own, and so as writable as all of /proc.
        Err(rustix::io::Errno::INVAL) => {}
        other => other.step("remount")?,
    }
    write_the_same(&Path::new("/proc").join(CORE_PATTERN))
}

/// What is bound onto itself loses more of its path when it is taken off.
pub(super) fn interrupts_detached() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let irq = scratch.mount("proc")?.join("irq");
    mount_bind(&irq, &irq).step("bind")?;
    detached(&irq, "default_smp_affinity", None)
}

pub(super) fn swappiness_fresh_proc() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    write_the_same(&scratch.mount("proc")?.join("sys/vm/swappiness"))
}

pub(super) fn kernel_memory() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let memory = scratch.mount("proc")?.join("kcore");
    let mut file = File::open(memory).step("open")?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).step("read")?;
    if magic == *b"\x7fELF" { Ok(()) } else { leads_nowhere("read") }
}

/// A new network namespace comes with the right to mount a sysfs that is writable.
fn fresh_sysfs(scratch: &Scratch) -> Result<PathBuf, Failed> {
    raw::unshare(UnshareFlags::NEWNET).step("unshare")?;
    scratch.mount("sysfs")
}

pub(super) fn disk_settings_fresh_sysfs() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    write_the_same(&fresh_sysfs(&scratch)?.join(DISK_SETTING))
}

pub(super) fn disk_settings_bound_sysfs() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let sysfs = fresh_sysfs(&scratch)?.display().to_string();
    write_the_same(&bound(&scratch, &sysfs)?.join(DISK_SETTING))
}

pub(super) fn disk_settings_detached_sysfs() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let sysfs = fresh_sysfs(&scratch)?;
    detached(&sysfs, DISK_SETTING, None)
}

pub(super) fn file_system_settings() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    write_the_same(&fresh_sysfs(&scratch)?.join("fs/ext4/vda/inode_readahead_blks"))
}

pub(super) fn file_system_settings_bound() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let folder = fresh_sysfs(&scratch)?.join("fs/ext4").display().to_string();
    write_the_same(&bound(&scratch, &folder)?.join("vda/inode_readahead_blks"))
}

/// The profiles of AppArmor, and what changes them.
pub(super) fn securityfs() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    read(&scratch.mount("securityfs")?.join("apparmor/profiles"), "read").map(drop)
}

pub(super) fn debugfs() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let listed = std::fs::read_dir(scratch.mount("debugfs")?).step("list")?;
    if listed.count() > 0 { Ok(()) } else { leads_nowhere("list") }
}

/// The newer calls that mount make a file system that can be used before it is mounted anywhere.
pub(super) fn debugfs_newer_way() -> Result<(), Failed> {
    let context = fsopen("debugfs", FsOpenFlags::empty()).step("fsopen")?;
    fsconfig_create(&context).step("fsconfig")?;
    let root = fsmount(&context, FsMountFlags::empty(), MountAttrFlags::empty()).step("fsmount")?;
    rustix::fs::openat(&root, "bdi", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
        .step("open a folder")
        .map(drop)
}

pub(super) fn tracefs() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    write_the_same(&scratch.mount("tracefs")?.join("tracing_on"))
}

/// What is registered there runs outside of every container.
pub(super) fn binfmt() -> Result<(), Failed> {
    let scratch = Scratch::new()?;
    let register = scratch.mount("binfmt_misc")?.join("register");
    std::fs::OpenOptions::new().write(true).open(register).step("open").map(drop)
}

pub(super) fn kernel_log() -> Result<(), Failed> {
    let text = raw::kernel_log().step("read the log")?;
    if text.is_empty() { leads_nowhere("read the log") } else { Ok(()) }
}

/// With such a program, all that goes on in the machine is to be seen.
pub(super) fn trace_kernel() -> Result<(), Failed> {
    let program = raw::load_program().step("load a program")?;
    raw::trace_system_calls(program.as_fd()).step("attach a program").map(drop)
}

pub(super) fn watch_processes() -> Result<(), Failed> {
    raw::watch_all_processes().step("perf_event_open").map(drop)
}

/// Keyrings are those of a user in a user namespace, and of no other.
pub(super) fn root_keyring() -> Result<(), Failed> {
    raw::read_user_keyring().step("keyctl")
}

/// The kernel asks whether it may before it looks at the module, which is none.
pub(super) fn module_load() -> Result<(), Failed> {
    match rustix::system::init_module(b"no module", c"") {
        Err(rustix::io::Errno::NOEXEC) => Ok(()),
        other => other.step("load a module"),
    }
}

pub(super) fn set_time() -> Result<(), Failed> {
    clock_settime(ClockId::Realtime, clock_gettime(ClockId::Realtime)).step("set the clock")
}

pub(super) fn profile_change() -> Result<(), Failed> {
    let label = read(Path::new("/proc/self/attr/current"), "read")?;
    if label.starts_with(b"unconfined") {
        return leads_nowhere("look");
    }
    write(Path::new("/proc/self/attr/current"), b"changeprofile unconfined")
}
