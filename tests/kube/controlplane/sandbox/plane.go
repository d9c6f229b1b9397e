package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"rayml.test/controlplane/wire"
)

const (
	bridgeName = "pods"
	uplinkName = "uplink"
	settled    = time.Minute // after which a folder without a lock is a dead plane's
)

// holdPlane keeps a plane's sandbox and the link to it: FOLDER. It picks a free network, prints
// nothing itself, and hands standard input and output to the sandbox.
func holdPlane(arguments []string) error {
	if err := hasArgument(arguments, 1, "plane FOLDER"); err != nil {
		return err
	}
	folder := arguments[0]
	lock, err := lockFolder(folder)
	if err != nil {
		return err
	}
	defer lock.Close()
	inner, err := os.StartProcess("/proc/self/exe", []string{"sandbox", "plane-inner"}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Env: os.Environ(),
		Sys: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
			Pdeathsig:  syscall.SIGKILL,
			Setsid:     true, // a terminal's Ctrl-C is the caller's to handle
		},
	})
	if err != nil {
		return err
	}
	if err := link(folder, inner.Pid); err != nil {
		inner.Kill() //nolint:errcheck // it has ended by itself
		return err
	}
	if _, err = inner.Wait(); err != nil { // when it ends, the kernel has ended all that it held
		return err
	}
	return removeTraces(folder, linkName(inner.Pid))
}

// removeTraces takes away what a sandbox leaves that has ended.
func removeTraces(folder, linkName string) error {
	if link, err := netlink.LinkByName(linkName); err == nil {
		netlink.LinkDel(link) //nolint:errcheck // the kernel was quicker
	}
	removeCgroups(folder)
	return os.RemoveAll(folder)
}

func linkName(pid int) string {
	return fmt.Sprintf("rayml%d", pid)
}

// link joins this machine's network with the sandbox's, and writes both addresses into the folder.
func link(folder string, pid int) error {
	free, err := lockNetworks()
	if err != nil {
		return err
	}
	defer free.Close()
	network, err := freeNetwork()
	if err != nil {
		return err
	}
	bridge, host := address(network, 1), address(network, 2)
	name := linkName(pid)
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: uplinkName, PeerNamespace: netlink.NsPid(pid)}
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	if err := raise(name, host); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "addresses"), []byte(bridge+"\n"+host+"\n"), 0o644)
}

// freeNetwork finds a network of 1022 addresses in the range for benchmarks, which is never routed.
func freeNetwork() (*net.IPNet, error) {
	taken, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	for i := range 128 {
		network := &net.IPNet{IP: net.IPv4(198, byte(18+i/64), byte(i%64*4), 0).To4(), Mask: net.CIDRMask(22, 32)}
		if !holdsAny(network, taken) {
			return network, nil
		}
	}
	return nil, fmt.Errorf("all 128 networks of 198.18.0.0/15 are in use")
}

func holdsAny(network *net.IPNet, addresses []netlink.Addr) bool {
	for _, address := range addresses {
		if network.Contains(address.IP) || address.IPNet.Contains(network.IP) {
			return true
		}
	}
	return false
}

func address(network *net.IPNet, last byte) string {
	ones, _ := network.Mask.Size()
	return fmt.Sprintf("%d.%d.%d.%d/%d", network.IP[0], network.IP[1], network.IP[2], last, ones)
}

// servePlane is the first process of a plane's sandbox.
func servePlane([]string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	return serve(prepareBridge)
}

// prepareBridge makes the network on which pods, components and the machine meet.
func prepareBridge(p *wire.Prepare) error {
	ip, _, err := net.ParseCIDR(p.Address)
	if err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = bridgeName
	// Left to itself, it takes the lowest of its ports' addresses, and all neighbours have to learn anew.
	attributes.HardwareAddr = net.HardwareAddr(append([]byte{2, 0}, ip.To4()...))
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := netlink.LinkAdd(bridge); err != nil {
		return err
	}
	// Who forwards and has no route says so at once; who does not forward is silent.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644); err != nil {
		return err
	}
	if err := raise("lo", ""); err != nil {
		return err
	}
	if err := raise(bridgeName, p.Address); err != nil {
		return err
	}
	uplink, err := awaitLink(uplinkName)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(uplink, bridge); err != nil {
		return err
	}
	return netlink.LinkSetUp(uplink)
}

func lockFolder(folder string) (*os.File, error) {
	return lockFile(filepath.Join(folder, "lock"), syscall.LOCK_EX|syscall.LOCK_NB)
}

// lockNetworks keeps two planes from choosing the same network, whoever has started them: the lock is
// one of the namespace that holds the networks, for each session has a folder for its files of its own.
func lockNetworks() (*os.File, error) {
	namespace, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	return locked(namespace, syscall.LOCK_EX)
}

func lockFile(path string, how int) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	return locked(file, how)
}

func locked(file *os.File, how int) (*os.File, error) {
	if err := syscall.Flock(int(file.Fd()), how); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return file, nil
}

// sweep removes what planes have left whose sandbox was killed with its holder: the folders given.
func sweep(folders []string) error {
	for _, folder := range folders {
		info, err := os.Stat(folder)
		if err != nil || time.Since(info.ModTime()) < settled {
			continue // it may not be locked yet
		}
		lock, err := lockFolder(folder)
		if err != nil {
			continue // it is in use
		}
		if err := removeTraces(folder, ""); err != nil {
			fmt.Fprintln(os.Stderr, "sandbox sweep:", err)
		}
		lock.Close()
	}
	return nil
}

// removeCgroups removes the cgroups that a plane's kubelet lists in its folder, the deepest first.
func removeCgroups(folder string) {
	listed, err := os.ReadFile(filepath.Join(folder, "cgroup"))
	if err != nil {
		return
	}
	top := strings.TrimSpace(string(listed))
	for _, pattern := range []string{"*/*/*", "*/*", "*", ""} {
		found, _ := filepath.Glob(filepath.Join(top, pattern))
		for _, path := range found {
			os.Remove(path) //nolint:errcheck // files of a cgroup cannot be removed and need not be
		}
	}
}
