package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// shadow puts a folder in memory at target that shows what source holds, read-only but for devices,
// and in which new entries can be made.
func (r *root) shadow(source, target string) error {
	fd, err := unix.Open(source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	entries, err := os.ReadDir(source)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", target, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	r.own[target] = true
	behind := fmt.Sprintf("/proc/self/fd/%d", fd) // source itself may now lie below target
	for _, entry := range entries {
		if source == "/" && entry.Name() == "proc" {
			err = os.Mkdir(filepath.Join(target, "proc"), 0o755)
		} else {
			err = r.show(entry, filepath.Join(behind, entry.Name()), filepath.Join(target, entry.Name()))
		}
		if err != nil {
			return fmt.Errorf("show %s at %s: %w", filepath.Join(source, entry.Name()), target, err)
		}
	}
	return nil
}

func (r *root) show(entry os.DirEntry, source, target string) error {
	if entry.Type()&os.ModeSymlink != 0 {
		link, err := os.Readlink(source)
		if err != nil {
			return err
		}
		return os.Symlink(link, target)
	}
	if entry.IsDir() {
		if err := os.Mkdir(target, 0o755); err != nil {
			return err
		}
	} else if err := os.WriteFile(target, nil, 0o644); err != nil {
		return err
	}
	r.own[target] = false
	if err := bind(source, target); err != nil {
		return err
	}
	return readOnly(target)
}

func bind(source, target string) error {
	return unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, "")
}

// readOnly makes a mount and all below it read-only; devices can be written to all the same.
func readOnly(target string) error {
	err := unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	if errors.Is(err, unix.ENOSYS) { // Linux before 5.12: only the topmost
		return unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	}
	return err
}
