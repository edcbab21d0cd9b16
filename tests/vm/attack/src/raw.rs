//! The system calls without a safe wrapper, each made one.
#![allow(unsafe_code, reason = "there is no other way to make these system calls")]

use std::ffi::{c_int, c_long, c_uint, c_ulong};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::thread::UnshareFlags;

/// The kind of program that decides which devices a cgroup may use.
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_DETACH: c_int = 9;
const BPF_PROG_GET_FD_BY_ID: c_int = 13;
const BPF_PROG_QUERY: c_int = 16;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// `linux/nsfs.h`: the parent of a namespace.
const NS_GET_PARENT: c_ulong = 0xb702;
/// `syslog(2)`: reads all that is in the kernel's log.
const SYSLOG_ACTION_READ_ALL: c_int = 3;

fn checked(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Gives this thread namespaces of its own.
pub(crate) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: only `FILES` is unsound, and it is never asked for.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Reads the kernel's log.
pub(crate) fn kernel_log() -> io::Result<Vec<u8>> {
    let mut text = vec![0u8; 1 << 16];
    let room = c_int::try_from(text.len()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes no more than `room` bytes, which are there.
    let read =
        checked(unsafe { libc::syscall(libc::SYS_syslog, SYSLOG_ACTION_READ_ALL, text.as_mut_ptr(), room) })?;
    text.truncate(usize::try_from(read).map_err(io::Error::other)?);
    Ok(text)
}

/// The namespace in which the one behind `namespace` was made.
pub(crate) fn parent_namespace(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: this request takes no argument.
    let fd = checked(unsafe { libc::syscall(libc::SYS_ioctl, namespace.as_raw_fd(), NS_GET_PARENT) })?;
    owned(fd)
}

fn owned(fd: c_long) -> io::Result<OwnedFd> {
    let fd = c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for this process alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `union bpf_attr`, as far as attaching and detaching need it.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

/// The same for asking which programs are attached.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

fn bpf<T>(command: c_int, attributes: &mut T) -> io::Result<c_long> {
    let size = c_uint::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes `size` bytes of what is borrowed for the call, and what that points to is kept by
    // the caller.
    checked(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) })
}

fn number(fd: &impl AsRawFd) -> io::Result<u32> {
    u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)
}

/// The programs that decide which devices a cgroup may use.
pub(crate) struct DeviceFilters<'a> {
    cgroup: BorrowedFd<'a>,
    programs: Vec<OwnedFd>,
}

impl<'a> DeviceFilters<'a> {
    pub(crate) fn of(cgroup: BorrowedFd<'a>) -> io::Result<Self> {
        let mut ids = [0u32; 64];
        let mut query = Query {
            target_fd: number(&cgroup)?,
            attach_type: BPF_CGROUP_DEVICE,
            prog_ids: ids.as_mut_ptr() as u64,
            prog_cnt: 64,
            ..Query::default()
        };
        bpf(BPF_PROG_QUERY, &mut query)?;
        let found = usize::try_from(query.prog_cnt).map_err(io::Error::other)?;
        let program = |id: &u32| {
            // The rest of the attributes is zero.
            let mut attributes = [*id, 0, 0];
            bpf(BPF_PROG_GET_FD_BY_ID, &mut attributes).and_then(owned)
        };
        let programs = ids.iter().take(found).map(program).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { cgroup, programs })
    }

    pub(crate) fn number(&self) -> usize {
        self.programs.len()
    }

    pub(crate) fn detach(&self) -> io::Result<()> {
        self.programs.iter().try_for_each(|program| self.change(BPF_PROG_DETACH, program, 0))
    }

    pub(crate) fn attach(&self) -> io::Result<()> {
        self.programs.iter().try_for_each(|program| self.change(BPF_PROG_ATTACH, program, BPF_F_ALLOW_MULTI))
    }

    fn change(&self, command: c_int, program: &OwnedFd, attach_flags: u32) -> io::Result<()> {
        let mut attributes = Attach {
            target_fd: number(&self.cgroup)?,
            attach_bpf_fd: number(program)?,
            attach_type: BPF_CGROUP_DEVICE,
            attach_flags,
            ..Attach::default()
        };
        bpf(command, &mut attributes).map(drop)
    }
}

/// The same for loading a program, as far as the smallest one needs it.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    rest: [u64; 8],
}

/// The same for attaching one to a point of the kernel.
#[repr(C)]
struct RawTracepoint {
    name: u64,
    prog_fd: u32,
    padding: u32,
}

/// Loads a program that does nothing.
pub(crate) fn load_program() -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: c_int = 5;
    const RAW_TRACEPOINT: u32 = 17;
    // r0 = 0; exit
    let instructions: [u64; 2] = [0xb7, 0x95];
    let license = c"GPL";
    let mut load = Load {
        prog_type: RAW_TRACEPOINT,
        insn_cnt: 2,
        insns: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Load::default()
    };
    bpf(BPF_PROG_LOAD, &mut load).and_then(owned)
}

/// Has a program run in the kernel at each system call of the whole machine, until the descriptor is closed.
pub(crate) fn trace_system_calls(program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const BPF_RAW_TRACEPOINT_OPEN: c_int = 17;
    let mut attach =
        RawTracepoint { name: c"sys_enter".as_ptr() as u64, prog_fd: number(&program)?, padding: 0 };
    bpf(BPF_RAW_TRACEPOINT_OPEN, &mut attach).and_then(owned)
}

/// Counts what every process of the machine does on the first processor.
pub(crate) fn watch_all_processes() -> io::Result<OwnedFd> {
    // `struct perf_event_attr`: a software event, the size of the first version, and the clock of the processor.
    let mut attributes = [0u64; 8];
    attributes[0] = 1 | (64 << 32);
    let (everybody, processor, no_group, no_flags) = (-1, 0, -1, 0);
    // SAFETY: the kernel reads the attributes, whose length is in them.
    let fd = checked(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_ptr(),
            everybody,
            processor,
            no_group,
            no_flags,
        )
    })?;
    owned(fd)
}

/// Is told of every file that is opened on the whole file system of which `path` shows a part.
pub(crate) fn watch_file_system(path: &std::ffi::CStr) -> io::Result<OwnedFd> {
    // SAFETY: it takes two numbers.
    let group =
        checked(unsafe { libc::syscall(libc::SYS_fanotify_init, libc::FAN_CLASS_NOTIF, libc::O_RDONLY) });
    let group = group.and_then(owned)?;
    let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
    // SAFETY: the path ends with a zero.
    checked(unsafe {
        libc::syscall(
            libc::SYS_fanotify_mark,
            group.as_raw_fd(),
            flags,
            libc::FAN_OPEN,
            libc::AT_FDCWD,
            path.as_ptr(),
        )
    })?;
    Ok(group)
}

/// Reads which keys are in the keyring of the user.
pub(crate) fn read_user_keyring() -> io::Result<()> {
    const KEYCTL_READ: c_int = 11;
    const USER_KEYRING: c_int = -4;
    let mut keys = [0u32; 64];
    // SAFETY: the kernel writes no more than the length that it is told.
    checked(unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_READ, USER_KEYRING, keys.as_mut_ptr(), size_of_val(&keys))
    })
    .map(drop)
}

/// A handle of a file by the number of its inode, as ext4 makes them.
#[repr(C)]
struct Handle {
    handle_bytes: c_uint,
    handle_type: c_int,
    inode: u32,
    generation: u32,
}

/// Opens the root folder of a whole file system of which `mount` shows a part.
pub(crate) fn open_root_of(mount: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // On ext4, the root has the inode 2 of generation 0.
    let handle = Handle { handle_bytes: 8, handle_type: 1, inode: 2, generation: 0 };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the kernel reads the handle, whose length is in it.
    let fd = checked(unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), std::ptr::from_ref(&handle), flags)
    })?;
    owned(fd)
}
