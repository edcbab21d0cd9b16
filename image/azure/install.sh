#!/bin/sh
# Installs Microsoft's IoT Edge runtime in the image, after its engine. Environment:
#   VERSION     of aziot-edge: "1.6" is the last 1.6.*, "1.6.0" exactly this one. It decides which aziot-identity-service.
#   ENGINE      docker.io is in the image already; moby-engine is installed here.
#   REPOSITORY  where the packages are when there is no folder `packages` beside this script: a URL, and the suite if that is
#               not bookworm. The key of its signatures is `repository-key` beside this script, else it is fetched from
#               /keys/microsoft.asc of the same host.
# What does not fit is refused with one line that begins with "kedge: ", which the tool shows as the reason.
set -eu

here=$(dirname "$0")
packages=$here/packages
architecture=$(dpkg --print-architecture)
key=/etc/apt/keyrings/kedge-runtime.asc
list=/etc/apt/sources.list.d/kedge-runtime.list

refuse() {
    echo "kedge: $*" >&2
    exit 1
}

# Whether the version $1 of a package is as $2 says: "any", "=" and the very one, or one or the line that it begins with.
fits() {
    case $2 in
    any) return ;;
    =*) [ "$1" = "${2#=}" ] && return ;;
    esac
    case ${1#*:} in
    "$2" | "$2"-* | "$2".*) return ;;
    esac
    return 1
}

# The file of the package $1 in the folder, in version $2; $3 tells where that version comes from.
choose() {
    found='' chosen=''
    for file in "$packages"/*.deb; do
        [ -e "$file" ] || continue
        package=$(dpkg-deb --field "$file" Package) ||
            refuse "\`$(basename "$file")\` is no Debian package; copy it anew"
        [ "$package" = "$1" ] || continue
        version=$(dpkg-deb --field "$file" Version)
        built_for=$(dpkg-deb --field "$file" Architecture)
        found="$found${found:+, }$version for $built_for"
        case $built_for in "$architecture" | all) ;; *) continue ;; esac
        fits "$version" "$2" || continue
        [ -z "$chosen" ] || refuse "$1: \`$(basename "$chosen")\` and \`$(basename "$file")\` both are $2 for" \
            "$architecture; keep one of them in the folder of packages"
        chosen=$file
    done
    [ -n "$chosen" ] || refuse "$1: found ${found:-none}, wanted $2 for $architecture, $3; put it into the folder of packages"
    echo "$chosen"
}

# The version of the package $1 in the repository that fits $2: the last one, as apt lists them.
newest() {
    found=''
    for version in $(apt-cache madison "$1" | cut -d '|' -f 2); do
        ! fits "$version" "$2" || { echo "$version" && return; }
        found="$found${found:+, }$version"
    done
    refuse "$1: found ${found:-none} for $architecture at $REPOSITORY, wanted $2, $3; choose another version or repository"
}

# The one version of the identity service that a package of the runtime works with. Input: its Depends.
pinned() {
    tr ',' '\n' | sed -n 's/^ *aziot-identity-service *(= *\([^ )]*\)).*/\1/p'
}

# Makes apt know the repository.
add_repository() {
    mkdir -p "$(dirname "$key")"
    if [ -e "$here/repository-key" ]; then
        install -m 0644 "$here/repository-key" "$key"
    else
        host=${REPOSITORY#*://}
        url=https://${host%%/*}/keys/microsoft.asc
        # apt's own helper spares the image curl and gnupg. It leaves a file that only root may read, and apt's checker is not.
        /usr/lib/apt/apt-helper download-file "$url" "$key" ||
            refuse "cannot fetch the key of $REPOSITORY from $url; give it as runtime.repository-key, or the packages in a folder"
        chmod 0644 "$key"
    fi
    case $REPOSITORY in *' '*) source=$REPOSITORY ;; *) source="$REPOSITORY bookworm" ;; esac
    echo "deb [arch=$architecture signed-by=$key] $source main" >"$list"
    apt-get -q update -o Dir::Etc::SourceList="$list" -o Dir::Etc::SourceParts=/dev/null -o APT::Get::List-Cleanup=0 \
        -o APT::Update::Error-Mode=any ||
        refuse "cannot use the repository $REPOSITORY; is it reachable, and is it signed with this key?"
}

# Refuses accounts that are not as the Dockerfile has made them: the files on the volumes belong to them by number, and
# without these groups the services may not talk to each other and to the engine.
check_accounts() {
    while read -r user uid groups; do
        [ "$(id -u "$user")" = "$uid" ] || refuse "the user $user has the id $(id -u "$user") in place of $uid"
        for group in $groups; do
            id -nG "$user" | tr ' ' '\n' | grep -qx "$group" || refuse "the user $user is not in the group $group"
        done
    done <<-ACCOUNTS
		aziotks 13610 aziotks
		aziottpm 13611 aziottpm
		aziotcs 13612 aziotcs aziotks
		aziotid 13613 aziotid aziotcs aziotks aziottpm
		iotedge 13614 iotedge docker systemd-journal aziotcs aziotks aziotid
		edgeagentuser 13622 iotedge
		edgehubuser 13623 edgehubuser
	ACCOUNTS
}

# Refuses a runtime of which a part is missing or would not start. The folders of the services' configuration become theirs
# alone: the packages leave most of them to root and open to all.
complete_units() {
    for unit in aziot-edged.service aziot-certd.socket aziot-identityd.socket aziot-keyd.socket aziot-tpmd.socket; do
        [ "$(systemctl is-enabled "$unit")" = enabled ] || refuse "$unit is not enabled"
    done
    for unit in aziot-edged.mgmt.socket aziot-edged.workload.socket; do
        [ -e "/lib/systemd/system/$unit" ] || refuse "aziot-edge $edge_version has no $unit"
    done
    while read -r service user; do
        install -d -m 0700 -o "$user" -g "$user" "/etc/aziot/$service/config.d"
    done <<-FOLDERS
		certd aziotcs
		edged iotedge
		identityd aziotid
		keyd aziotks
		tpmd aziottpm
	FOLDERS
}

case $architecture in
amd64 | arm64) ;;
*) refuse "there is no runtime for $architecture; use amd64 or arm64" ;;
esac

# Services are started by the pod's systemd, and not by the maintainer scripts.
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 0755 /usr/sbin/policy-rc.d
apt-get -q update

# First what is wanted is found, so that nothing is installed when it is not there.
engine=''
if [ -d "$packages" ]; then
    edge=$(choose aziot-edge "$VERSION" 'as the settings say')
    edge_version=$(dpkg-deb --field "$edge" Version)
    pin=$(dpkg-deb --field "$edge" Depends | pinned)
    identity=$(choose aziot-identity-service "${pin:+=}${pin:-$VERSION}" "which aziot-edge $edge_version needs")
    if [ "$ENGINE" = moby-engine ]; then
        # It comes with packages that Debian has not: moby-cli, moby-containerd, moby-runc and others.
        choose moby-engine any 'as the settings say' >/dev/null
        engine=$(ls "$packages"/moby-*_"$architecture".deb)
    fi
else
    add_repository
    edge_version=$(newest aziot-edge "$VERSION" 'as the settings say')
    pin=$(apt-cache show "aziot-edge=$edge_version" | sed -n 's/^Depends: //p' | pinned)
    identity_version=$(newest aziot-identity-service "${pin:+=}${pin:-$VERSION}" "which aziot-edge $edge_version needs")
    edge=aziot-edge=$edge_version
    identity=aziot-identity-service=$identity_version
    [ "$ENGINE" != moby-engine ] || engine='moby-engine moby-cli'
fi

# The engine before the runtime: it is to the engine's group that the runtime's user is added.
# shellcheck disable=SC2086 # These are several words.
[ -z "$engine" ] || apt-get -q install -y --no-install-recommends $engine
engine_version=$(dockerd --version | sed -n 's/^Docker version \([0-9.]*\).*/\1/p')
"$here/docker-api" "$ENGINE" "$engine_version" "${edge_version#*:}"
apt-get -q install -y --no-install-recommends "$identity" "$edge"

systemctl enable aziot-edged.service aziot-certd.socket aziot-identityd.socket aziot-keyd.socket aziot-tpmd.socket
check_accounts
complete_units
rm -f /usr/sbin/policy-rc.d "$list" "$key"
rm -rf /var/lib/apt/lists/*
