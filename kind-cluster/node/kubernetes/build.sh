#!/bin/sh
# Compiles Kubernetes from Debian's source package, which is complete: no module is fetched.
# Usage: build.sh SOURCES OUTPUT   (SOURCES: the folder with the downloaded source package)
set -eu

sources=$1
output=$2
here=$(dirname "$(readlink -f "$0")")
version=v1.20.2
root=/go/src/k8s.io/kubernetes

say() { printf '==> %s\n' "$*"; }

case $(echo "$sources"/kubernetes_*.orig.tar.gz) in
*"${version#v}".orig.tar.gz) ;;
*)
    echo "expected the source package of Kubernetes $version, found $(ls "$sources")" >&2
    exit 1
    ;;
esac

say "unpacking the Kubernetes source package"
mkdir -p "$root"
tar -xzf "$sources"/kubernetes_*.orig.tar.gz -C "$root" --strip-components=1
tar -xJf "$sources"/kubernetes_*.debian.tar.xz -C "$root"
cd "$root"
while read -r patch; do
    case $patch in '' | '#'*) continue ;; esac
    say "applying $patch"
    patch --quiet -p1 <"debian/patches/$patch"
done <debian/patches/series

# The vendored reflect2 1.0.1 panics in programs built by Go 1.18 or newer.
say "replacing the vendored reflect2 with Debian's 1.0.2"
rm -r vendor/github.com/modern-go/reflect2
cp -rL /usr/share/gocode/src/github.com/modern-go/reflect2 vendor/github.com/modern-go/reflect2

# The tree is built as Kubernetes 1.20 builds itself: in a GOPATH, without modules.
export CGO_ENABLED=0 GOPATH=/go GOCACHE=/go/cache GO111MODULE=off GOPROXY=off GOFLAGS=

# The one generated file that the source package leaves out. The generator reads a GOPATH tree.
say "generating the OpenAPI definitions"
go build -o /go/bin/openapi-gen ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
tagged=$(grep -rl --include='*.go' '+k8s:openapi-gen=' pkg cmd plugin staging/src/k8s.io |
    grep -v -e /code-generator/ -e /sample-apiserver/ -e /testdata/ -e _test.go |
    xargs -n1 dirname | sort -u |
    sed -e 's#^staging/src/#k8s.io/kubernetes/vendor/#' -e 's#^\(pkg\|cmd\|plugin\)#k8s.io/kubernetes/\1#' |
    paste -sd, -)
/go/bin/openapi-gen -h hack/boilerplate/boilerplate.generatego.txt \
    -i "$tagged" -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi \
    -r /go/violations.report

# Cloud providers and the Docker shim are left out, as kind leaves them out of its own node images.
say "compiling Kubernetes $version (the long part)"
mkdir -p cmd/node "$output"
cp "$here/main.go" cmd/node/main.go
flags="-s -w"
for package in client-go/pkg/version component-base/version; do
    package=k8s.io/kubernetes/vendor/k8s.io/$package
    flags="$flags -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=20"
    flags="$flags -X $package.gitTreeState=archive"
done
(
    # go build -v names each package as it comes to it; a count every 100 of them is enough to follow.
    go build -v -trimpath -tags providerless,dockerless -gcflags=all=-dwarf=false \
        -ldflags "$flags" -o "$output/kubernetes" ./cmd/node 2>&1 && echo 'build finished'
) | awk -v out=/go/build.log '
    { print >out; last = $0 }
    /^[A-Za-z0-9.\/_-]+$/ { if (++n % 100 == 0) { printf "    %d of about 2200 packages compiled\n", n; fflush() } next }
    { print; fflush() }
    END { exit last != "build finished" }'
ls -l "$output/kubernetes"
