package netlab

import (
	"os"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Feature is something that a lab asks of the kernel.
type Feature struct {
	Name string
	Err  error  // why it can't be had; nil: it can
	Todo string // what to do then
}

// Features tries what a lab needs, in a network namespace that is gone when
// it returns. Without rights or namespaces there is one feature, which fails.
func Features() []Feature {
	if err := Allowed(); err != nil {
		return []Feature{{Name: "network namespaces", Err: err}}
	}
	var all []Feature
	add := func(name, todo string, try func() error) {
		all = append(all, Feature{Name: name, Err: try(), Todo: todo})
	}
	OnThread(func() error {
		err := unix.Unshare(unix.CLONE_NEWNET)
		all = append(all, Feature{Name: "network namespaces", Err: err, Todo: "In a container, allow CAP_SYS_ADMIN and the system calls unshare and setns"})
		if err != nil {
			return err
		}
		add("bridges", "Load the module `bridge`", func() error { return makeBridge(bridge) })
		add("veth pairs", "Load the module `veth`", func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "try0"
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "try1"})
		})
		add("cuts and losses", "Load the modules `nf_tables` and `nf_tables_bridge`; without them the cluster runs, and links can't be cut", func() error {
			c, err := nftables.New()
			if err != nil {
				return err
			}
			c.AddChain(faultChain(c.AddTable(faultTable())))
			return c.Flush()
		})
		add("settings of networks", "In a container, mount /proc/sys writable", func() error {
			f, err := os.OpenFile("/proc/sys/net/ipv4/conf/all/arp_ignore", os.O_WRONLY, 0)
			if err == nil {
				err = f.Close()
			}
			return err
		})
		return nil
	})
	return all
}
