package main

import (
	"fmt"
	"net"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"rayml.test/controlplane/wire"
)

const (
	podLink     = "eth0"
	linkWithin  = 5 * time.Second
	sharedBytes = 64 << 20 // what container runtimes give /dev/shm
)

// servePod holds one pod; it was started in namespaces of its own.
func servePod([]string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	return serve(preparePod)
}

func preparePod(p *wire.Prepare) error {
	if err := unix.Sethostname([]byte(p.Hostname)); err != nil {
		return err
	}
	for _, memory := range append([]wire.Memory{{Path: "/dev/shm", SizeBytes: sharedBytes}}, p.Memory...) {
		options := "mode=1777"
		if memory.SizeBytes > 0 {
			options += fmt.Sprintf(",size=%d", memory.SizeBytes)
		}
		if err := unix.Mount("tmpfs", memory.Path, "tmpfs", 0, options); err != nil {
			return fmt.Errorf("memory at %s: %w", memory.Path, err)
		}
	}
	if err := raise("lo", ""); err != nil {
		return err
	}
	if err := raise(podLink, p.Address); err != nil {
		return err
	}
	// Programs learn their own address from the route to some far one; nothing is forwarded there.
	return netlink.RouteAdd(&netlink.Route{Gw: net.ParseIP(p.Gateway)})
}

// raise gives a link of this namespace an address, if one is named, and sets it up.
func raise(name, address string) error {
	link, err := awaitLink(name)
	if err != nil {
		return err
	}
	if address != "" {
		parsed, err := netlink.ParseAddr(address)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(link, parsed); err != nil {
			return fmt.Errorf("address %s of %s: %w", address, name, err)
		}
	}
	return netlink.LinkSetUp(link)
}

// awaitLink waits for a link that the parent moves into this namespace.
func awaitLink(name string) (netlink.Link, error) {
	deadline := time.Now().Add(linkWithin)
	for {
		link, err := netlink.LinkByName(name)
		if err == nil || time.Now().After(deadline) {
			return link, err
		}
		time.Sleep(time.Millisecond)
	}
}

func hasArgument(arguments []string, count int, usage string) error {
	if len(arguments) != count {
		fmt.Fprintln(os.Stderr, "usage: sandbox", usage)
		return fmt.Errorf("%d arguments instead of %d", len(arguments), count)
	}
	return nil
}
