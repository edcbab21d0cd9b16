// Command kubernetes holds every Kubernetes component of the node in one binary; the name it is called by
// chooses the component. The components share nearly all their code, so one binary takes a fraction of the
// room of seven, and one image layer serves every static pod.
//
// Each case does what the component's own main function does in Kubernetes 1.20, save that kubectl logs by way of
// component-base, as the others do: its own copy of that package registers the same flags a second time.
package main

import (
	goflag "flag"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	_ "k8s.io/client-go/plugin/pkg/client/auth"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubeadm "k8s.io/kubernetes/cmd/kubeadm/app"
	kubeadmutil "k8s.io/kubernetes/cmd/kubeadm/app/util"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	rand.Seed(time.Now().UnixNano())
	switch name := filepath.Base(os.Args[0]); name {
	case "kubeadm":
		// kubeadm registers the logging flags itself, and so needs a flag set that does not have them yet.
		goflag.CommandLine = goflag.NewFlagSet(name, goflag.ExitOnError)
		kubeadmutil.CheckErr(kubeadm.Run())
	case "kubectl":
		command := kubectl.NewDefaultKubectlCommand()
		pflag.CommandLine.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
		pflag.CommandLine.AddGoFlagSet(goflag.CommandLine)
		run(command)
	case "kubelet":
		run(kubelet.NewKubeletCommand())
	case "kube-apiserver":
		run(apiserver.NewAPIServerCommand())
	case "kube-controller-manager":
		run(controllermanager.NewControllerManagerCommand())
	case "kube-scheduler":
		command := scheduler.NewSchedulerCommand()
		pflag.CommandLine.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
		run(command)
	case "kube-proxy":
		command := proxy.NewProxyCommand()
		pflag.CommandLine.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
		pflag.CommandLine.AddGoFlagSet(goflag.CommandLine)
		run(command)
	default:
		fmt.Fprintf(os.Stderr, "%s is not the name of a Kubernetes component\n", name)
		os.Exit(2)
	}
}

func run(command *cobra.Command) {
	logs.InitLogs()
	defer logs.FlushLogs()
	if err := command.Execute(); err != nil {
		os.Exit(1)
	}
}
