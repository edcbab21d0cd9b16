//! Whether an engine can run a container with certain rights here, found out by running one.
//!
//! Some hosts drop a capability from the bounding set, and an older Docker then fails to start any privileged
//! container. The probe needs no image from anywhere: it makes one of a program that only exits.

use std::fs::File;
use std::io::Seek as _;

use anyhow::{Context, Result, bail};

use super::{Build, ContainerSpec, Engine, Rights};

const IMAGE: &str = "localhost/kedge/probe:1";
const DOCKERFILE: &str = "FROM scratch\nCOPY exit /exit\nCMD [\"/exit\"]\n";

impl Engine {
    /// Runs a container with these rights.
    ///
    /// # Errors
    /// When the engine could not run it; the error has the engine's own words.
    pub(super) async fn try_rights(&self, rights: Rights) -> Result<()> {
        if !self.has_image(IMAGE).await? {
            let build = Build {
                context: context()?,
                reference: IMAGE.into(),
                target: None,
                from_nothing: false,
                args: vec![],
            };
            self.build(build, |_| {}).await?;
        }
        let name = format!("kedge-probe-{}", std::process::id());
        let spec = ContainerSpec {
            name: name.clone(),
            image: IMAGE.into(),
            own_cgroups: true,
            rights,
            ..ContainerSpec::default()
        };
        let code = self.run_to_end(&spec).await;
        self.remove_container(&name).await?;
        match code? {
            0 => Ok(()),
            code => bail!("a container that should only exit ended with code {code}"),
        }
    }
}

/// The build context of the probe image: the Dockerfile and the program.
fn context() -> Result<File> {
    let mut archive =
        tar::Builder::new(tempfile::tempfile().context("failed to make a file for the probe image")?);
    for (name, mode, contents) in
        [("Dockerfile", 0o644, DOCKERFILE.as_bytes()), ("exit", 0o755, &exit_program()?)]
    {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(contents.len() as u64);
        archive.append_data(&mut header, name, contents).context("failed to pack the probe image")?;
    }
    let packed = archive.into_inner().and_then(|mut file| file.rewind().map(|()| file));
    packed.context("failed to pack the probe image")
}

/// An ELF executable that consists of headers and the system call `exit(0)`.
fn exit_program() -> Result<Vec<u8>> {
    const LOAD_ADDRESS: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let (machine, code): (u16, &[u8]) = match std::env::consts::ARCH {
        // xor edi, edi; mov eax, 60; syscall
        "x86_64" => (62, &[0x31, 0xff, 0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05]),
        // mov x0, #0; mov x8, #93; svc #0
        "aarch64" => (183, &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0, 0, 0xd4]),
        other => bail!("KEdge runs on x86_64 and aarch64, not on {other}"),
    };
    let size = HEADERS + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // Type executable, machine, version 1, entry point, program headers at 64, no sections.
    elf.extend(2u16.to_le_bytes());
    elf.extend(machine.to_le_bytes());
    elf.extend(1u32.to_le_bytes());
    for value in [LOAD_ADDRESS + HEADERS, 64, 0] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(0u32.to_le_bytes());
    for value in [64u16, 56, 1, 0, 0, 0] {
        elf.extend(value.to_le_bytes());
    }
    // One segment: load the whole file, readable and executable.
    elf.extend(1u32.to_le_bytes());
    elf.extend(5u32.to_le_bytes());
    for value in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1000] {
        elf.extend(value.to_le_bytes());
    }
    elf.extend(code);
    Ok(elf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn the_program_exits_with_success() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exit");
        fs_err::write(&path, exit_program().unwrap()).unwrap();
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        crate::process::Process::new("exit", &path).run().await.unwrap();
    }
}
