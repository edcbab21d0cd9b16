#!/bin/sh
# Last touches in the root of the machine, given as the first argument: who the remapped containers are, and what starts.
set -eu

in_root() { chroot "$@"; }

in_root "$1" useradd --system --no-create-home --shell /usr/sbin/nologin dockremap
in_root "$1" systemctl enable kedge-guest.service
# What nobody needs in a machine that lives for minutes.
in_root "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
    e2scrub_reap.service fstrim.timer getty@.service serial-getty@.service systemd-pstore.service \
    systemd-update-utmp.service systemd-update-utmp-runlevel.service >/dev/null 2>&1
in_root "$1" systemctl set-default multi-user.target
