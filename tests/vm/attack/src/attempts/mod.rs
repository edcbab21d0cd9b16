//! The attempts: what each is called, what it is to the kernel, and what stops it where nothing else does.

mod devices;
mod namespaces;
mod settings;

use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};
use rustix::thread::UnshareFlags;
use tempfile::TempDir;

use crate::facts::{self, Capability};
use crate::raw;

/// Something that is tried.
pub(crate) struct Attempt {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What is done, for people.
    pub(crate) what: &'static str,
    /// What the kernel asks for, in the machine's own user namespace; any one of them will do.
    pub(crate) needs: &'static [Capability],
    /// What stands in the way when it is none of these.
    pub(crate) else_by: &'static str,
    pub(crate) run: fn() -> Result<(), Failed>,
}

/// What ended an attempt.
pub(crate) struct Failed {
    /// What was being done.
    pub(crate) step: &'static str,
    /// How the kernel refused it.
    pub(crate) error: io::Error,
}

const fn attempt(
    name: &'static str,
    what: &'static str,
    needs: &'static [Capability],
    else_by: &'static str,
    run: fn() -> Result<(), Failed>,
) -> Attempt {
    Attempt { name, what, needs, else_by, run }
}

const ADMIN: &[Capability] = &[facts::SYS_ADMIN];

/// All attempts; the ones that change most come last.
pub(crate) const ATTEMPTS: [Attempt; 48] = [
    attempt("sysrq-direct", "write to `/proc/sysrq-trigger`", &[], "masked path", settings::sysrq_direct),
    attempt(
        "sysrq-unmasked",
        "the same, after taking off what is mounted over it",
        ADMIN,
        "masked path",
        settings::sysrq_unmasked,
    ),
    attempt(
        "sysrq-fresh-proc",
        "the same, in a `/proc` that is mounted anew",
        ADMIN,
        "-",
        settings::sysrq_fresh_proc,
    ),
    attempt(
        "sysrq-bound-proc",
        "the same, in a `/proc` that is bound elsewhere",
        ADMIN,
        "-",
        settings::sysrq_bound_proc,
    ),
    attempt(
        "sysrq-bound-with-options",
        "the same, bound with other options",
        ADMIN,
        "-",
        settings::sysrq_bound_with_options,
    ),
    attempt(
        "sysrq-bound-file",
        "the same, with the file bound elsewhere",
        ADMIN,
        "-",
        settings::sysrq_bound_file,
    ),
    attempt(
        "sysrq-moved-proc",
        "the same, in a `/proc` that is mounted anew and moved",
        ADMIN,
        "-",
        settings::sysrq_moved_proc,
    ),
    attempt(
        "sysrq-detached-proc",
        "the same, in a `/proc` that is taken off while it is open",
        ADMIN,
        "-",
        settings::sysrq_detached_proc,
    ),
    attempt(
        "sysrq-pivoted-proc",
        "the same, in a `/proc` that has become the root",
        ADMIN,
        "-",
        settings::sysrq_pivoted_proc,
    ),
    attempt(
        "core-pattern-fresh-proc",
        "set `kernel.core_pattern` in a `/proc` that is mounted anew",
        ADMIN,
        "-",
        settings::core_pattern_fresh_proc,
    ),
    attempt(
        "core-pattern-bound-proc",
        "the same, in a `/proc` that is bound elsewhere",
        ADMIN,
        "-",
        settings::core_pattern_bound_proc,
    ),
    attempt(
        "core-pattern-remounted",
        "the same, after making `/proc/sys` writable",
        ADMIN,
        "-",
        settings::core_pattern_remounted,
    ),
    attempt(
        "core-pattern-detached-proc",
        "the same, in a `/proc` that is taken off while it is open",
        ADMIN,
        "-",
        settings::core_pattern_detached_proc,
    ),
    attempt(
        "interrupts-bound",
        "direct the machine's interrupts, in a `/proc/irq` that is bound elsewhere",
        ADMIN,
        "-",
        settings::interrupts_bound,
    ),
    attempt(
        "interrupts-detached",
        "the same, in a `/proc/irq` that is taken off while it is open",
        ADMIN,
        "-",
        settings::interrupts_detached,
    ),
    attempt(
        "swappiness-fresh-proc",
        "set `vm.swappiness` in a `/proc` that is mounted anew",
        ADMIN,
        "-",
        settings::swappiness_fresh_proc,
    ),
    attempt(
        "kernel-memory",
        "read the kernel's memory in `/proc/kcore`",
        &[facts::SYS_RAWIO],
        "-",
        settings::kernel_memory,
    ),
    attempt(
        "disk-settings-fresh-sysfs",
        "set up the machine's disk in the `/sys` of a new network namespace",
        ADMIN,
        "-",
        settings::disk_settings_fresh_sysfs,
    ),
    attempt(
        "disk-settings-bound-sysfs",
        "the same, with that `/sys` bound elsewhere",
        ADMIN,
        "-",
        settings::disk_settings_bound_sysfs,
    ),
    attempt(
        "disk-settings-detached-sysfs",
        "the same, with that `/sys` taken off while it is open",
        ADMIN,
        "-",
        settings::disk_settings_detached_sysfs,
    ),
    attempt(
        "file-system-settings",
        "set up the machine's file system in such a `/sys`",
        ADMIN,
        "-",
        settings::file_system_settings,
    ),
    attempt(
        "file-system-settings-bound",
        "the same, with the folder of it bound elsewhere",
        ADMIN,
        "-",
        settings::file_system_settings_bound,
    ),
    attempt("securityfs", "mount securityfs and read AppArmor's profiles", ADMIN, "-", settings::securityfs),
    attempt("debugfs", "mount debugfs", ADMIN, "-", settings::debugfs),
    attempt(
        "debugfs-with-options",
        "the same, with other options",
        ADMIN,
        "-",
        settings::debugfs_with_options,
    ),
    attempt(
        "debugfs-newer-way",
        "the same, by the newer system calls",
        ADMIN,
        "-",
        settings::debugfs_newer_way,
    ),
    attempt("tracefs", "mount tracefs and switch tracing", ADMIN, "-", settings::tracefs),
    attempt("binfmt", "mount binfmt_misc and register a program", ADMIN, "-", settings::binfmt),
    attempt(
        "kernel-log",
        "read the kernel's log",
        &[facts::SYSLOG, facts::SYS_ADMIN],
        "-",
        settings::kernel_log,
    ),
    attempt(
        "trace-kernel",
        "run a program of one's own in the kernel (BPF)",
        ADMIN,
        "-",
        settings::trace_kernel,
    ),
    attempt(
        "watch-processes",
        "watch all processes of the machine (perf)",
        ADMIN,
        "-",
        settings::watch_processes,
    ),
    attempt("root-keyring", "read the keys of the machine's root", &[], "-", settings::root_keyring),
    attempt("module-load", "load a module into the kernel", &[facts::SYS_MODULE], "-", settings::module_load),
    attempt("set-time", "set the machine's clock", &[facts::SYS_TIME], "-", settings::set_time),
    attempt(
        "profile-change",
        "change the AppArmor profile to `unconfined`",
        &[],
        "there is none",
        settings::profile_change,
    ),
    attempt(
        "own-memory-limit",
        "lift the container's own memory limit",
        &[],
        "cgroup namespace (nsdelegate)",
        namespaces::own_memory_limit,
    ),
    attempt(
        "host-cgroups",
        "mount the machine's cgroups",
        ADMIN,
        "cgroup namespace",
        namespaces::host_cgroups,
    ),
    attempt(
        "release-agent",
        "mount cgroup v1 and its release agent",
        ADMIN,
        "cgroup namespace",
        namespaces::release_agent,
    ),
    attempt(
        "parent-namespace",
        "open the machine's PID namespace",
        &[],
        "PID namespace",
        namespaces::parent_namespace,
    ),
    attempt("new-user-namespace", "make a new user namespace", &[], "-", namespaces::new_user_namespace),
    attempt(
        "host-superblock",
        "remount the machine's file system through a volume",
        ADMIN,
        "-",
        devices::host_superblock,
    ),
    attempt(
        "host-file-by-handle",
        "open a file of the machine by its handle",
        &[facts::DAC_READ_SEARCH],
        "-",
        devices::host_file_by_handle,
    ),
    attempt(
        "watch-host-files",
        "be handed each file that is opened on the machine (fanotify)",
        ADMIN,
        "-",
        devices::watch_host_files,
    ),
    attempt("devtmpfs", "mount the nodes of the machine's devices", ADMIN, "-", devices::devtmpfs),
    attempt(
        "mknod-host-disk",
        "make the node of the machine's disk",
        &[facts::MKNOD],
        "-",
        devices::mknod_host_disk,
    ),
    attempt("device-filter", "take the filter of devices off (BPF)", ADMIN, "-", devices::device_filter),
    attempt(
        "read-host-disk",
        "do both and read the machine's disk",
        &[facts::MKNOD],
        "device cgroup",
        devices::read_host_disk,
    ),
    attempt(
        "mount-host-disk",
        "do both and mount the machine's disk",
        &[facts::MKNOD],
        "device cgroup",
        devices::mount_host_disk,
    ),
];

/// Says what was being done when something failed.
trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Failed>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Failed> {
        self.map_err(|error| Failed { step, error: error.into() })
    }
}

/// What nobody refused, and yet did not lead to what it was for.
fn leads_nowhere<T>(step: &'static str) -> Result<T, Failed> {
    Err(Failed { step, error: io::Error::other("leads nowhere") })
}

/// A folder for mounts, on a file system that may have devices. The mounts are gone with this process where it may have a mount
/// namespace of its own, and are else taken off again.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Result<Self, Failed> {
        // Not every attempt needs one, and each says itself when it has none.
        let _ = raw::unshare(UnshareFlags::NEWNS);
        tempfile::Builder::new().prefix("attack-").tempdir_in("/var").map(Self).step("make a folder")
    }

    /// A folder in it.
    fn folder(&self, name: &str) -> Result<PathBuf, Failed> {
        let folder = self.0.path().join(name);
        std::fs::create_dir_all(&folder).step("make a folder")?;
        Ok(folder)
    }

    /// Mounts a new file system in it, under the name that it mostly has: rules for paths may go by that.
    fn mount(&self, kind: &str) -> Result<PathBuf, Failed> {
        let name = match kind {
            "sysfs" => "sys",
            "cgroup2" => "sys/fs/cgroup",
            other => other,
        };
        let folder = self.folder(name)?;
        mount(kind, &folder, kind, MountFlags::empty(), None).step("mount")?;
        Ok(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is mounted must not be taken for what is in the folder, which is going to be removed.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for target in targets
            .filter(|target| Path::new(target).starts_with(self.0.path()))
            .collect::<Vec<_>>()
            .iter()
            .rev()
        {
            let _ = rustix::mount::unmount(*target, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

fn read(path: &Path, step: &'static str) -> Result<Vec<u8>, Failed> {
    std::fs::read(path).step(step)
}

fn write(path: &Path, contents: &[u8]) -> Result<(), Failed> {
    std::fs::write(path, contents).step("write")
}

/// Writes what is there already, which changes nothing and needs the same rights.
fn write_the_same(path: &Path) -> Result<(), Failed> {
    let contents = read(path, "read")?;
    write(path, &contents)
}
