#!/bin/sh
# Last touches inside the node's root: leaves out what a node never uses, and fixes which units start.
set -eu

# Of the network plugins only those that the configuration and the container runtime call.
cd /usr/lib/cni
for plugin in *; do
    case $plugin in bridge | host-local | loopback | portmap | ptp) ;; *) rm "$plugin" ;; esac
done
rm -f /usr/bin/containerd-stress /usr/bin/containerd-shim /usr/bin/containerd-shim-runc-v1
rm -rf /usr/share/doc/* /usr/share/man/* /usr/share/locale/* /usr/share/perl5 /usr/share/bash-completion \
    /usr/share/zoneinfo /var/log/* /var/cache/* /var/lib/systemd/* /tmp/* /root/.cache

# A container has no devices, consoles or disks of its own to look after.
systemctl mask \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer \
    console-getty.service getty-static.service getty@.service getty.target \
    dev-hugepages.mount sys-fs-fuse-connections.mount sys-kernel-config.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount \
    systemd-binfmt.service systemd-firstboot.service systemd-journal-flush.service systemd-logind.service \
    systemd-modules-load.service systemd-pcrphase-sysinit.service systemd-pcrphase.service \
    systemd-random-seed.service systemd-remount-fs.service systemd-sysctl.service systemd-sysusers.service \
    systemd-timesyncd.service systemd-udev-trigger.service systemd-udevd.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service modprobe@.service >/dev/null 2>&1
systemctl enable containerd.service kubelet.service
systemctl set-default multi-user.target

# kind reads the version of Kubernetes from here.
mkdir -p /kind /etc/kubernetes/manifests /etc/containerd/certs.d /lib/modules
kubelet --version | sed 's/^Kubernetes //' | tr -d '\n' >/kind/version
: >/etc/machine-id
