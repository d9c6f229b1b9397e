package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
	"rayml.test/controlplane/wire"
)

// becomeContainer reads a wire.Process from descriptor 3, makes its file system and executes it; it
// writes to descriptor 4 why it cannot.
func becomeContainer([]string) error {
	failure := os.NewFile(4, "failure")
	unix.CloseOnExec(4)
	fmt.Fprint(failure, executeContainer(os.NewFile(3, "spec")))
	return nil
}

func executeContainer(spec *os.File) error {
	text, err := io.ReadAll(spec)
	if err != nil {
		return err
	}
	spec.Close()
	var p wire.Process
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	for _, folder := range p.Container.Cgroups {
		if err := os.WriteFile(filepath.Join(folder, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			return err
		}
	}
	if err := makeRoot(p.Container, p.Dir); err != nil {
		return err
	}
	if err := os.Chdir(p.Dir); err != nil {
		return err
	}
	path, err := findProgram(p.Argv[0], p.Env)
	if err != nil {
		return err
	}
	return syscall.Exec(path, p.Argv, p.Env)
}

func findProgram(name string, env []string) (string, error) {
	os.Unsetenv("PATH") //nolint:errcheck // PATH is a good name
	for _, pair := range env {
		if path, found := strings.CutPrefix(pair, "PATH="); found {
			os.Setenv("PATH", path) //nolint:errcheck // as above
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("exec: %q: executable file not found in $PATH: %w", name, err)
	}
	return path, nil
}

// root is a file system under construction.
type root struct {
	path string
	own  map[string]bool // folders of ours, in which new entries can be made
}

// makeRoot changes into a root in which the machine's files can be read and the mounts be found.
func makeRoot(c *wire.Container, dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	r := &root{c.Root, map[string]bool{}}
	if err := r.shadow("/", c.Root); err != nil {
		return err
	}
	if err := r.fill(c, dir); err != nil {
		return err
	}
	if err := unix.Mount("proc", filepath.Join(c.Root, "proc"), "proc", 0, ""); err != nil {
		return err
	}
	if err := os.Chdir(c.Root); err != nil {
		return err
	}
	// The old root is put over the new one, and then taken away.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	return unix.Unmount(".", unix.MNT_DETACH)
}

func (r *root) fill(c *wire.Container, dir string) error {
	mounts := append([]wire.Mount{}, c.Mounts...)
	sort.SliceStable(mounts, func(i, j int) bool {
		return strings.Count(mounts[i].Target, "/") < strings.Count(mounts[j].Target, "/")
	})
	for _, mount := range mounts {
		if err := r.bind(mount); err != nil {
			return fmt.Errorf("mount %s at %s: %w", mount.Source, mount.Target, err)
		}
	}
	_, err := r.folder(dir)
	return err
}

func (r *root) bind(m wire.Mount) error {
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	var target string
	if info.IsDir() {
		target, err = r.folder(m.Target)
	} else {
		target, err = r.file(m.Target)
	}
	if err != nil {
		return err
	}
	if err := bind(m.Source, target); err != nil {
		return err
	}
	r.own[target] = info.IsDir() && !m.ReadOnly
	if m.ReadOnly {
		return readOnly(target)
	}
	return nil
}

// folder finds or makes a folder of the new root and says where it is now.
func (r *root) folder(path string) (string, error) {
	at, rest, err := r.resolve(path)
	if err != nil || rest == "" {
		return at, err
	}
	if !r.owns(at) {
		if err := r.shadow(at, at); err != nil {
			return "", err
		}
	}
	at = filepath.Join(at, rest)
	return at, os.MkdirAll(at, 0o755)
}

func (r *root) file(path string) (string, error) {
	at, rest, err := r.resolve(path)
	if err != nil || rest == "" {
		return at, err
	}
	parent, err := r.folder(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	if !r.owns(parent) {
		if err := r.shadow(parent, parent); err != nil {
			return "", err
		}
	}
	at = filepath.Join(parent, filepath.Base(path))
	return at, os.WriteFile(at, nil, 0o644)
}

// owns says whether entries can be made at path: the nearest folder that is known decides.
func (r *root) owns(path string) bool {
	for ; len(path) >= len(r.path); path = filepath.Dir(path) {
		if own, known := r.own[path]; known {
			return own
		}
	}
	return false
}

// resolve follows path, links included, inside the new root: what exists of it, and what does not.
func (r *root) resolve(path string) (string, string, error) {
	at, words := r.path, strings.Split(strings.Trim(path, "/"), "/")
	for links := 0; len(words) > 0; {
		word := words[0]
		if word == "" || word == "." {
			words = words[1:]
			continue
		}
		next := filepath.Join(at, word)
		info, err := os.Lstat(next)
		if os.IsNotExist(err) {
			return at, filepath.Join(words...), nil
		}
		if err != nil {
			return "", "", err
		}
		words = words[1:]
		if info.Mode()&os.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > 40 {
			return "", "", fmt.Errorf("%s: %w", path, syscall.ELOOP)
		}
		link, err := os.Readlink(next)
		if err != nil {
			return "", "", err
		}
		if filepath.IsAbs(link) {
			at = r.path
		}
		words = append(strings.Split(strings.Trim(link, "/"), "/"), words...)
	}
	return at, "", nil
}
