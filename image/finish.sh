#!/bin/sh
# Last touches inside the common root, and after another runtime was installed on it: leaves out what the pod never uses,
# and fixes which units start.
set -eu

rm -f /usr/bin/containerd-stress /usr/bin/containerd-shim /usr/bin/containerd-shim-runc-v1 /usr/bin/ctr /usr/bin/dnet /usr/sbin/ovrouter
rm -rf /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /usr/share/bash-completion \
    /usr/share/zsh /usr/share/fish /usr/share/docker.io /usr/share/zoneinfo/right /usr/share/zoneinfo/posix \
    /var/log/* /var/cache/* /tmp/*

# A pod has no devices, consoles or disks of its own to look after, and no packages to keep up to date.
systemctl mask \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    console-getty.service getty-static.service getty@.service getty.target \
    dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount sys-kernel-config.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount \
    modprobe@.service systemd-binfmt.service systemd-firstboot.service systemd-journal-flush.service \
    systemd-logind.service systemd-modules-load.service systemd-networkd.service \
    systemd-pcrphase-sysinit.service systemd-pcrphase.service systemd-random-seed.service \
    systemd-remount-fs.service systemd-sysctl.service systemd-sysusers.service systemd-timesyncd.service systemd-udev-trigger.service \
    systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-update-utmp.service systemd-update-utmp-runlevel.service >/dev/null 2>&1
# The engine may come with the runtime.
! command -v dockerd >/dev/null || systemctl enable containerd.service docker.service docker.socket
systemctl enable kedge-preload.service
systemctl set-default multi-user.target

# apt looks for its folder when another target installs packages.
mkdir -p /var/cache/apt/archives/partial /var/cache/debconf
mkdir -p /etc/aziot /var/lib/aziot /var/lib/docker /var/secrets /run/kedge/credentials
# Empty rather than absent: every pod gets its own at start, and none takes it for the first boot of an installation.
: >/etc/machine-id
