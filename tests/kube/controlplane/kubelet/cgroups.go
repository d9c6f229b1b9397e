package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/klog/v2"
)

const lookAgain = 100 * time.Millisecond

// cgroups limits the memory of containers, where this machine lets us.
type cgroups struct {
	top     string // empty: it does not
	unified bool
}

func newCgroups(folder string) *cgroups {
	for _, candidate := range []cgroups{
		{top: filepath.Join("/sys/fs/cgroup/memory", ownMemoryGroup())},
		{top: "/sys/fs/cgroup", unified: true},
	} {
		if _, err := os.Stat(filepath.Join(candidate.top, candidate.controlFile())); err != nil {
			continue
		}
		candidate.top = filepath.Join(candidate.top, filepath.Base(folder))
		if err := candidate.makeFolder(candidate.top); err != nil {
			klog.Warningf("memory limits are not kept: %v", err)
			continue
		}
		// Whoever sweeps up after us reads it.
		if err := os.WriteFile(filepath.Join(folder, "cgroup"), []byte(candidate.top), 0o644); err == nil {
			return &candidate
		}
	}
	return &cgroups{}
}

func (c cgroups) controlFile() string {
	if c.unified {
		return "cgroup.subtree_control"
	}
	return "memory.limit_in_bytes"
}

func ownMemoryGroup() string {
	text, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		words := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(words) == 3 && words[1] == "memory" {
			return words[2]
		}
	}
	return "/"
}

func (c cgroups) makeFolder(path string) error {
	if err := os.Mkdir(path, 0o755); err != nil && !os.IsExist(err) {
		return err
	}
	if !c.unified {
		return nil
	}
	return os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte("+memory"), 0o644)
}

// group is the cgroup of one container; an empty path means that nothing limits it.
type group struct {
	path    string
	unified bool
	before  int // how many were killed before this container's present start
}

// limit makes a group for a container of a pod.
func (c *cgroups) limit(pod, container string, bytes int64) (group, error) {
	if c.top == "" || bytes == 0 {
		return group{}, nil
	}
	parent := filepath.Join(c.top, pod)
	if err := c.makeFolder(parent); err != nil {
		return group{}, err
	}
	g := group{path: filepath.Join(parent, container), unified: c.unified}
	if err := os.Mkdir(g.path, 0o755); err != nil && !os.IsExist(err) {
		return group{}, err
	}
	limits := map[string]string{"memory.limit_in_bytes": strconv.FormatInt(bytes, 10)}
	if c.unified {
		limits = map[string]string{"memory.max": strconv.FormatInt(bytes, 10), "memory.oom.group": "1"}
	}
	for file, value := range limits {
		if err := os.WriteFile(filepath.Join(g.path, file), []byte(value), 0o644); err != nil {
			return group{}, fmt.Errorf("memory limit of %s: %w", container, err)
		}
	}
	g.before = g.counted()
	return g, nil
}

func (c *cgroups) removePod(pod string) {
	if c.top == "" {
		return
	}
	containers, _ := filepath.Glob(filepath.Join(c.top, pod, "*"))
	for _, path := range append(containers, filepath.Join(c.top, pod)) {
		os.Remove(path) //nolint:errcheck // files of a cgroup cannot be removed and need not be
	}
}

// mount is where a container finds its own limit.
func (g group) mount() string {
	if g.unified {
		return "/sys/fs/cgroup"
	}
	return "/sys/fs/cgroup/memory"
}

// kills counts the processes of the group that were killed for want of memory.
func (g group) kills() int {
	if g.path == "" {
		return 0
	}
	return g.counted() - g.before
}

// endTogether ends all processes of the group as soon as one was killed for want of memory, until
// ended: as the kernel does by memory.oom.group, which the older kind of cgroups has not.
func (g group) endTogether(ended <-chan struct{}) {
	for g.path != "" && !g.unified {
		select {
		case <-ended:
			return
		case <-time.After(lookAgain):
		}
		if g.kills() > 0 {
			g.killAll()
		}
	}
}

func (g group) killAll() {
	text, _ := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
	for line := range strings.Lines(string(text)) {
		if id, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && id > 0 {
			syscall.Kill(id, syscall.SIGKILL) //nolint:errcheck // it has ended by itself
		}
	}
}

func (g group) counted() int {
	file := "memory.oom_control"
	if g.unified {
		file = "memory.events"
	}
	text, _ := os.ReadFile(filepath.Join(g.path, file))
	for line := range strings.Lines(string(text)) {
		if count, found := strings.CutPrefix(line, "oom_kill "); found {
			kills, _ := strconv.Atoi(strings.TrimSpace(count))
			return kills
		}
	}
	return 0
}
