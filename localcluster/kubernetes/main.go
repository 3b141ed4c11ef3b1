// Command kubernetes is etcd and the five programs of a Kubernetes node and
// control plane in one binary. The name it is called by (argv[0], a symbolic
// link) picks the program.
//
// One binary is built instead of six because the programs share nearly all of
// their code: the linker then runs once and the result is a fifth of the size.
// A call by any other name lists the programs and exits with status 64.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics on /metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // build version on /metrics
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// exitUsage is sysexits.h's EX_USAGE: the program was called by a wrong name.
const exitUsage = 64

// commands maps the name of each cobra program to its constructor. They are
// constructors, not commands: making one registers flags globally, so only the
// program that runs may be made.
var commands = map[string]func() *cobra.Command{
	"kube-apiserver":          apiserver.NewAPIServerCommand,
	"kube-controller-manager": controllermanager.NewControllerManagerCommand,
	"kube-scheduler":          func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kube-proxy":              proxy.NewProxyCommand,
	"kubelet":                 func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
}

func main() {
	name := filepath.Base(os.Args[0])
	if name == "etcd" {
		etcdmain.Main(os.Args)
		return
	}
	constructor, known := commands[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s: call me by one of these names: etcd", name)
		for program := range commands {
			fmt.Fprintf(os.Stderr, ", %s", program)
		}
		fmt.Fprintln(os.Stderr)
		os.Exit(exitUsage)
	}
	os.Exit(cli.Run(constructor()))
}
