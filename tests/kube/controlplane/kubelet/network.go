package kubelet

import (
	"fmt"
	"net"
	"sync"

	"github.com/vishvananda/netlink"
)

const (
	bridgeName = "pods"
	firstHost  = 10 // the addresses below are the bridge's and the machine's
)

// network gives pods their addresses and their links to the bridge.
type network struct {
	mu     sync.Mutex
	base   net.IP
	prefix int
	last   int
	used   map[int]bool
}

func newNetwork(bridge string) (*network, error) {
	_, subnet, err := net.ParseCIDR(bridge)
	if err != nil {
		return nil, err
	}
	prefix, _ := subnet.Mask.Size()
	return &network{base: subnet.IP.To4(), prefix: prefix, last: firstHost, used: map[int]bool{}}, nil
}

// take finds the address that has been free the longest.
func (n *network) take() (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	size := 1<<(32-n.prefix) - 1
	for range size {
		n.last++
		if n.last >= size {
			n.last = firstHost
		}
		if !n.used[n.last] {
			n.used[n.last] = true
			return n.last, nil
		}
	}
	return 0, fmt.Errorf("all addresses of %s/%d are in use", n.base, n.prefix)
}

func (n *network) release(host int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.used, host)
}

func (n *network) ip(host int) net.IP {
	return net.IPv4(n.base[0], n.base[1], n.base[2]+byte(host>>8), n.base[3]+byte(host))
}

// connect puts a link into the network namespace of a process.
func (n *network) connect(host, pid int) error {
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = linkName(host)
	attributes.MasterIndex = bridge.Attrs().Index
	ip := n.ip(host).To4()
	veth := &netlink.Veth{
		LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsPid(pid),
		// An address always has the same hardware address, so that neighbours need not learn anew.
		PeerHardwareAddr: net.HardwareAddr{2, 0, ip[0], ip[1], ip[2], ip[3]},
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("link %s: %w", attributes.Name, err)
	}
	return netlink.LinkSetUp(veth)
}

// disconnect takes the link away at once, where the kernel would take its time.
func (n *network) disconnect(host int) {
	if link, err := netlink.LinkByName(linkName(host)); err == nil {
		netlink.LinkDel(link) //nolint:errcheck // it went with its namespace
	}
}

func linkName(host int) string {
	return fmt.Sprintf("pod%d", host)
}
