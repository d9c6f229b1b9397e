// Package wire holds what a caller and a sandbox say to each other: orders on the sandbox's
// standard input and reports on its standard output, one JSON object a line.
package wire

// Order is one thing to do; exactly one of the pointers is set.
type Order struct {
	ID      int      `json:"id"`
	Start   *Process `json:"start,omitempty"`
	Signal  *Signal  `json:"signal,omitempty"`
	Exec    *Exec    `json:"exec,omitempty"`
	Prepare *Prepare `json:"prepare,omitempty"`
}

// Report answers the order with the same ID, or, with ID 0, tells that a process has ended.
type Report struct {
	ID     int    `json:"id"`
	Error  string `json:"error,omitempty"`
	Pid    int    `json:"pid,omitempty"`
	Code   int    `json:"code"`
	Output string `json:"output,omitempty"`
	Ended  *Ended `json:"ended,omitempty"`
}

// Ended says how a process ended: by its own exit, or by a signal if that is not 0.
type Ended struct {
	Name   string `json:"name"`
	Code   int    `json:"code"`
	Signal int    `json:"signal"`
}

// Process is a program to start, as it is or, with a Container, in a file system of its own.
type Process struct {
	Name      string     `json:"name"`
	Argv      []string   `json:"argv"`
	Env       []string   `json:"env"`
	Dir       string     `json:"dir"`
	Log       string     `json:"log"`
	Container *Container `json:"container,omitempty"`
}

// Container says what a container's file system holds besides what the machine's holds, read-only.
type Container struct {
	Root    string   `json:"root"` // an empty folder, over which the new root is mounted
	Mounts  []Mount  `json:"mounts"`
	Cgroups []string `json:"cgroups"` // folders whose cgroup.procs the container joins
}

// Mount puts the folder or file Source of the machine at Target of the container.
type Mount struct {
	Source   string `json:"source"`
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly"`
}

// Signal is sent to the first process of the named one.
type Signal struct {
	Name   string `json:"name"`
	Number int    `json:"number"`
}

// Exec runs a program beside the named process, in its namespaces, for at most TimeoutS seconds.
type Exec struct {
	Name     string   `json:"name"`
	Argv     []string `json:"argv"`
	Env      []string `json:"env"`
	Dir      string   `json:"dir"`
	TimeoutS float64  `json:"timeoutS"`
}

// Prepare makes a pod's sandbox ready: its name, its address and its memory-backed folders.
type Prepare struct {
	Hostname string   `json:"hostname"`
	Address  string   `json:"address"` // with the length of the prefix
	Gateway  string   `json:"gateway"`
	Memory   []Memory `json:"memory"`
}

// Memory is a folder in memory that ends with the pod.
type Memory struct {
	Path      string `json:"path"`
	SizeBytes int64  `json:"sizeBytes"`
}
