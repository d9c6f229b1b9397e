package kubelet

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/klog/v2"
)

const gather = 20 * time.Millisecond // changes come in groups

// serviceHost is a name of a service and one address that is ready for it.
type serviceHost struct {
	namespace, service, hostname, address string
}

func (k *Kubelet) servicesChanged() {
	select {
	case k.changes <- struct{}{}:
	default:
	}
}

// keepHosts writes the hosts files of all pods anew when services change.
func (k *Kubelet) keepHosts(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.changes:
		}
		time.Sleep(gather)
		for _, worker := range k.allWorkers() {
			worker.mu.Lock()
			ip, held := worker.ip, worker.boxHeld
			worker.mu.Unlock()
			if !held {
				continue
			}
			if err := worker.writeHosts(ip); err != nil && !os.IsNotExist(err) {
				klog.Warningf("hosts of pod %s: %v", worker.pod().Name, err)
			}
		}
	}
}

// serviceHosts lists what the names of services stand for: the addresses of their pods, as if each
// service were headless.
func (k *Kubelet) serviceHosts() ([]serviceHost, error) {
	slices_, err := k.slices.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	hosts := []serviceHost{{"default", "kubernetes", "", k.address}}
	for _, slice := range slices_ {
		service := slice.Labels[discovery.LabelServiceName]
		if service == "" || slice.AddressType != discovery.AddressTypeIPv4 {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			if ready := endpoint.Conditions.Ready; ready != nil && !*ready {
				continue
			}
			hostname := ""
			if endpoint.Hostname != nil {
				hostname = *endpoint.Hostname
			}
			for _, address := range endpoint.Addresses {
				hosts = append(hosts, serviceHost{slice.Namespace, service, hostname, address})
			}
		}
	}
	slices.SortFunc(hosts, func(a, b serviceHost) int {
		return strings.Compare(a.namespace+"/"+a.service+"/"+a.address, b.namespace+"/"+b.service+"/"+b.address)
	})
	return hosts, nil
}

func (w *worker) writeHosts(ip string) error {
	hosts, err := w.kubelet.serviceHosts()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(w.folder, 0o755); err != nil {
		return err
	}
	return rewrite(filepath.Join(w.folder, "hosts"), hostsText(w.pod(), w.hostname(), ip, hosts))
}

func hostsText(pod *v1.Pod, hostname, ip string, hosts []serviceHost) []byte {
	var text bytes.Buffer
	text.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	own := hostname
	if pod.Spec.Subdomain != "" {
		own = fmt.Sprintf("%s.%s.%s.svc.cluster.local %s", hostname, pod.Spec.Subdomain, pod.Namespace, hostname)
	}
	fmt.Fprintf(&text, "%s\t%s\n", ip, own)
	for _, alias := range pod.Spec.HostAliases {
		fmt.Fprintf(&text, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, " "))
	}
	for _, host := range hosts {
		name := host.service + "." + host.namespace
		names := []string{name + ".svc.cluster.local", name + ".svc", name}
		if host.namespace == pod.Namespace {
			names = append(names, host.service)
		}
		if host.hostname != "" {
			for _, name := range slices.Clone(names) {
				names = append(names, host.hostname+"."+name)
			}
		}
		fmt.Fprintf(&text, "%s\t%s\n", host.address, strings.Join(names, " "))
	}
	return text.Bytes()
}

// rewrite changes a file in place, for containers have the very file mounted; who reads it meanwhile
// finds it whole: it is first written over, with empty lines for what was longer, then cut.
func rewrite(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	padding := bytes.Repeat([]byte("\n"), max(0, int(info.Size())-len(text)))
	if _, err := file.WriteAt(append(slices.Clone(text), padding...), 0); err != nil {
		return err
	}
	return file.Truncate(int64(len(text)))
}
