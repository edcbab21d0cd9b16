//! The virtual machine: Debian 12 from its packages with cgroup v2, AppArmor, every capability, and a Docker that holds the
//! project's images. It is emulated, so it runs everywhere, and slowly. It has no network; what goes in and out are disks
//! that are archives.

use std::cell::Cell;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio_util::sync::CancellationToken;
use xtask::inputs::{Fingerprint, Source, pack};
use xtask::process::{Process, end_group};
use xtask::steps::images::MMDEBSTRAP;
use xtask::wait::{Observation, wait_for};

use crate::images::Images;

/// What the machine is made of, besides Debian's essential packages.
const PACKAGES: &str = "linux-image-cloud-amd64,initramfs-tools,zstd,systemd,systemd-sysv,udev,dbus,kmod,procps,apparmor,\
                        docker.io,iptables,mmdebstrap,debian-archive-keyring";
/// Files in the disk take only the room that they need.
const DISK: &str = "16G";
const MEMORY: &str = "6144";
/// On the kernel's command line. The last word is what the attacks look for.
const KERNEL: &str = "root=/dev/vda rw console=ttyS0 quiet mitigations=off net.ifnames=0 panic=-1 audit=1 kedge.attack=allowed";
const MAKE_LIMIT: Duration = Duration::from_secs(10 * 60);
/// Room for the results.
const OUTPUT_BYTES: u64 = 64 << 20;

/// A machine that is in the cache.
pub(crate) struct Machine {
    folder: PathBuf,
    /// Ends the machine; Ctrl-C cancels it.
    cancel: CancellationToken,
}

impl Machine {
    /// The machine that has these images, from the cache, or a new one, which takes minutes.
    pub(crate) async fn ready(images: &Images, cache: &Path, guest: &Path) -> Result<Self> {
        let files = guest_files(guest);
        let settings = [&[PACKAGES, DISK][..], &MMDEBSTRAP, &images.references()].concat();
        let folder = cache.join(Fingerprint::of(&files, &settings)?.to_string());
        if !folder.exists() {
            // Each takes gigabytes, and what an aborted run has left is here as well.
            if cache.exists() {
                fs_err::remove_dir_all(cache)?;
            }
            fs_err::create_dir_all(cache)?;
            let began = Instant::now();
            Self::make(images, cache, guest, &folder).await?;
            eprintln!("made the virtual machine in {} s", began.elapsed().as_secs());
        }
        Ok(Self { folder, cancel: images.cancel().clone() })
    }

    async fn make(images: &Images, cache: &Path, guest: &Path, folder: &Path) -> Result<()> {
        let new = Self { folder: cache.join("new"), cancel: images.cancel().clone() };
        let root = new.folder.join("root");
        fs_err::create_dir_all(&new.folder)?;
        eprintln!("making the virtual machine from Debian's packages");
        // The files come before the packages, which heed some of them.
        let hooks = [
            format!("--essential-hook=sync-in {} /", guest.join("rootfs").display()),
            format!("--customize-hook=sh {} \"$1\"", guest.join("install.sh").display()),
        ];
        Process::new("assemble the virtual machine", "mmdebstrap")
            .args([format!("--include={PACKAGES}")])
            .args(hooks)
            .args(MMDEBSTRAP)
            .args([&root])
            .log(&new.log("mmdebstrap"))
            .limit(MAKE_LIMIT)
            .cancelled_by(&new.cancel)
            .run()
            .await?;
        eprintln!("loading the images into its Docker");
        let archives = root.join("images");
        images.save(&archives).await?;
        Process::new("load the images into the virtual machine", "unshare")
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "sh"])
            .args([guest.join("load"), root.clone()])
            .log(&new.log("load"))
            .limit(MAKE_LIMIT)
            .cancelled_by(&new.cancel)
            .run()
            .await?;
        fs_err::remove_dir_all(archives)?;
        for (name, kept) in [("vmlinuz-", "kernel"), ("initrd.img-", "initrd")] {
            fs_err::copy(only_file(&root.join("boot"), name)?, new.folder.join(kept))?;
        }
        Process::new("make the disk of the virtual machine", "mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-d"])
            .args([root.as_os_str(), new.disk().as_os_str(), DISK.as_ref()])
            .log(&new.log("mke2fs"))
            .limit(MAKE_LIMIT)
            .cancelled_by(&new.cancel)
            .run()
            .await?;
        fs_err::remove_dir_all(root)?;
        Ok(fs_err::rename(&new.folder, folder)?)
    }

    /// Starts the machine, lets it do what is in `input` by the script `input/run`, and unpacks its results. The machine stays
    /// as it is.
    pub(crate) async fn run(&self, input: &[Source], results: &Path, limit: Duration) -> Result<()> {
        if results.exists() {
            fs_err::remove_dir_all(results)?;
        }
        fs_err::create_dir_all(results)?;
        // What goes in and out need not outlive the run.
        let exchange = tempfile::tempdir_in(&self.folder)?;
        let [archive, output] = ["input", "output"].map(|name| exchange.path().join(name));
        pack(input, BufWriter::new(fs_err::File::create(&archive)?))?;
        fs_err::File::create(&output)?.set_len(OUTPUT_BYTES)?;
        let [console, told] = ["console.txt", "told.txt"].map(|name| results.join(name));
        let process = Process::new("run the virtual machine", "qemu-system-x86_64")
            .args(self.arguments([&archive, &output], [&console, &told]))
            .log(&results.join("qemu.txt"));
        let machine = process.start()?;
        let began = Instant::now();
        let shown = Cell::new(0);
        let ended = wait_for("the virtual machine", limit, || async {
            show_more(&told, &shown, began);
            match machine.try_wait() {
                Ok(None) if self.cancel.is_cancelled() => Observation::Failed("it was stopped".into()),
                Ok(None) => Observation::NotYet(last_line(&told)),
                Ok(Some(output)) if output.status.success() => Observation::Ready(()),
                Ok(Some(output)) => Observation::Failed(output.status.to_string()),
                Err(error) => Observation::Failed(error.to_string()),
            }
        })
        .await;
        end_group(&machine);
        ended.with_context(|| format!("its files are in `{}`", results.display()))?;
        tar::Archive::new(fs_err::File::open(&output)?).unpack(results)?;
        let status = fs_err::read_to_string(results.join("status")).unwrap_or_default();
        ensure!(
            status.trim() == "0",
            "the script in the virtual machine ended with `{}`, after: {}; all is in `{}`",
            status.trim(),
            last_line(&told),
            results.display()
        );
        Ok(())
    }

    /// QEMU's arguments: no devices but disks and two serial ports.
    fn arguments(&self, [input, output]: [&Path; 2], [console, told]: [&Path; 2]) -> Vec<String> {
        let disk = |name: &str, path: &Path, more: &str| {
            [
                "-drive".to_owned(),
                format!("if=none,id={name},format=raw,cache=unsafe,file={}{more}", path.display()),
                "-device".to_owned(),
                format!("virtio-blk-pci,drive={name},serial=kedge-{name}"),
            ]
        };
        let words = |text: &str| text.split(' ').map(ToOwned::to_owned).collect::<Vec<_>>();
        let file = |flag: &str, path: String| [flag.to_owned(), path];
        let folder = |name: &str| self.folder.join(name).display().to_string();
        let machine = "-machine q35 -accel tcg,thread=multi,tb-size=1024 -cpu max -smp 2 -nodefaults -no-user-config \
                       -display none -no-reboot -nic none";
        let mut arguments = words(machine);
        arguments.extend(file("-m", MEMORY.into()));
        arguments.extend(file("-kernel", folder("kernel")));
        arguments.extend(file("-initrd", folder("initrd")));
        arguments.extend(file("-append", KERNEL.into()));
        arguments.extend(disk("disk", &self.disk(), ",snapshot=on"));
        arguments.extend(disk("input", input, ",readonly=on"));
        arguments.extend(disk("output", output, ""));
        arguments.extend(file("-serial", format!("file:{}", console.display())));
        arguments.extend(file("-serial", format!("file:{}", told.display())));
        arguments
    }

    fn disk(&self) -> PathBuf {
        self.folder.join("disk")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }
}

/// The files that the machine's disk is made of.
fn guest_files(guest: &Path) -> Vec<Source> {
    let file = |name: &str| Source::file(guest.join(name), name);
    vec![Source::folder_at(guest.join("rootfs"), "rootfs"), file("install.sh"), file("load")]
}

/// The one file in a folder whose name begins so.
fn only_file(folder: &Path, beginning: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(beginning) {
            found.push(entry.path());
        }
    }
    match found.pop() {
        Some(path) if found.is_empty() => Ok(path),
        _ => bail!("`{}` has not exactly one file `{beginning}…`", folder.display()),
    }
}

/// Shows the lines that the machine has written since the last time.
fn show_more(told: &Path, shown: &Cell<usize>, began: Instant) {
    let Ok(text) = fs_err::read(told) else { return };
    let new = text.get(shown.get()..).unwrap_or_default();
    let Some(end) = new.iter().rposition(|byte| *byte == b'\n') else { return };
    for line in String::from_utf8_lossy(&new[..end]).lines() {
        eprintln!("{:>4} s  {}", began.elapsed().as_secs(), line.trim_end());
    }
    shown.set(shown.get() + end + 1);
}

fn last_line(told: &Path) -> String {
    let text = fs_err::read(told).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.lines().next_back().unwrap_or("it has said nothing").trim().to_owned()
}
