# What the scripts in the machine share.

# Restarts Docker with the users of containers mapped to others. It then has a store of its own.
remap_users() {
    mkdir -p /etc/docker
    echo '{"userns-remap": "dockremap"}' >/etc/docker/daemon.json
    restart_docker
}

restart_docker() {
    systemctl reset-failed docker.service
    systemctl restart docker.service
}
