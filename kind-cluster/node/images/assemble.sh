#!/bin/sh
# Makes the images of the static pods from binaries, and puts them into containerd's store. Each is one or two
# small layers by hand, without a distribution below; all Kubernetes components share one layer.
set -eu

say() { printf '==> %s\n' "$*"; }

here=$(dirname "$(readlink -f "$0")")
work=$(mktemp -d)
archive=$work/archive
mkdir -p "$archive" "$work/packages"
for package in /packages/*.deb; do dpkg-deb -x "$package" "$work/packages"; done
for name in kubeadm kubectl kubelet; do ln -s kubernetes "/usr/bin/$name"; done

# layer NAME: packs $work/NAME as a layer. It stays uncompressed: every new cluster unpacks it, and has two cores or
# so to do that with, while it starts everything else.
layer() {
    tar -C "$work/$1" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf "$archive/$1.tar" .
    sha256sum "$archive/$1.tar" | cut -d' ' -f1 >"$work/$1.digest"
}

# image NAME:TAG LAYER...: adds an image to the archive's list.
image() {
    reference=$1
    shift
    config=$(printf '%s' "$reference" | tr -c 'a-z0-9.' '-').json
    digests='' layers=''
    for name in "$@"; do
        digests="$digests${digests:+,}\"sha256:$(cat "$work/$name.digest")\""
        layers="$layers${layers:+,}\"$name.tar\""
    done
    cat >"$archive/$config" <<END
{"architecture":"$(dpkg --print-architecture)","os":"linux","created":"1970-01-01T00:00:00Z",
 "config":{"Env":["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Entrypoint":$entrypoint},
 "rootfs":{"type":"layers","diff_ids":[$digests]}}
END
    manifest="$manifest${manifest:+,}{\"Config\":\"$config\",\"RepoTags\":[\"$reference\"],\"Layers\":[$layers]}"
    say "image $reference"
}

# with_libraries FOLDER FILE...: copies programs, and the shared libraries that they need, to the same paths.
with_libraries() {
    folder=$1
    shift
    for file in "$@"; do
        { echo "$file"; ldd "$file" 2>/dev/null | grep -o '/[^ ]*' || true; } | while read -r path; do
            mkdir -p "$folder$(dirname "$path")"
            cp -Ln "$path" "$folder$path"
        done
    done
}

mkdir -p "$work/kubernetes/usr/local/bin" "$work/kubernetes/tmp" "$work/kubernetes/etc"
cp /usr/bin/kubernetes "$work/kubernetes/usr/local/bin/"
for name in kube-apiserver kube-controller-manager kube-proxy kube-scheduler; do
    ln -s kubernetes "$work/kubernetes/usr/local/bin/$name"
done

# kube-proxy calls these programs; the wrapper picks the variety of iptables that the node uses.
with_libraries "$work/netfilter" /bin/sh /usr/sbin/conntrack /usr/sbin/xtables-nft-multi /usr/sbin/xtables-legacy-multi \
    /usr/lib/x86_64-linux-gnu/xtables/*.so
mkdir -p "$work/netfilter/run"
cp "$here/iptables-wrapper" "$work/netfilter/usr/sbin/iptables-wrapper"
for tool in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
    ln -s iptables-wrapper "$work/netfilter/usr/sbin/$tool"
done

mkdir -p "$work/etcd/usr/local/bin"
with_libraries "$work/etcd" "$work/packages/usr/bin/etcd"
mv "$work/etcd$work/packages/usr/bin/etcd" "$work/etcd/usr/local/bin/etcd"
rm -rf "$work/etcd/tmp"

mkdir -p "$work/pause"
cp "$work/packages/usr/bin/catatonit" "$work/pause/pause"

for name in kubernetes netfilter etcd pause; do layer "$name"; done

# The names are those that kubeadm will ask for; CoreDNS has no Debian package, so there is no image of it.
manifest=''
kubeadm config images list --kubernetes-version "$(kubelet --version | sed 's/^Kubernetes //')" >"$work/names"
while read -r reference; do
    entrypoint=null
    case $reference in
    */kube-proxy:*) image "$reference" kubernetes netfilter ;;
    */kube-*) image "$reference" kubernetes ;;
    */etcd:*) image "$reference" etcd ;;
    */pause:*)
        entrypoint='["/pause","-P"]'
        image "$reference" pause
        sed -i "s#@PAUSE@#$reference#" /etc/containerd/config.toml
        ;;
    *) say "no image for $reference" ;;
    esac
done <"$work/names"
printf '[%s]' "$manifest" >"$archive/manifest.json"
tar -C "$archive" -cf "$work/images.tar" .

say "importing into containerd's store"
containerd --log-level error &
daemon=$!
until ctr version >/dev/null 2>&1; do sleep 0.1; done
ctr -n k8s.io images import --no-unpack "$work/images.tar"
ctr -n k8s.io images ls -q
kill "$daemon"
wait "$daemon" || true
rm -rf "$work" /run/containerd
