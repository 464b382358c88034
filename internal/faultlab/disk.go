package faultlab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Disks: with Config.Disks each node's data directory is a small ext4 of its
// own, on a loop device, so that it can be full and can be slow. It wants mount
// and mkfs.ext4, and a kernel with loop devices.

const (
	diskSize = 64 << 20 // bytes
	filler   = "filler"
)

// DisksAllowed is nil where Config.Disks can be had.
func DisksAllowed() error {
	for _, tool := range []string{"mount", "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("disks of their own for nodes need %s: %w", tool, err)
		}
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		return fmt.Errorf("disks of their own for nodes need loop devices: %w", err)
	}
	return nil
}

func (c *Cluster) dataDir(node string) string {
	return filepath.Join(c.Dir, ".clusterplan", "nodes", node, "data")
}

func (c *Cluster) image(node string) string { return filepath.Join(c.Dir, node+".ext4") }

// mountDisks gives every node its disk, before the first apply.
func (c *Cluster) mountDisks(ctx context.Context) error {
	for _, node := range c.Names() {
		f, err := os.Create(c.image(node))
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(diskSize), f.Close()); err != nil {
			return err
		}
		if err := os.MkdirAll(c.dataDir(node), 0o700); err != nil {
			return err
		}
		for _, args := range [][]string{
			{"mkfs.ext4", "-q", "-F", "-m", "0", c.image(node)},
			{"mount", "-o", "loop", c.image(node), c.dataDir(node)},
		} {
			if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", args[0], err, out)
			}
		}
		// It is no file of the node's.
		if err := os.Remove(filepath.Join(c.dataDir(node), "lost+found")); err != nil {
			return err
		}
	}
	return nil
}

// unmountDisks lets the disks go: at once for whoever looks, in truth when the
// last agent has closed its files.
func (c *Cluster) unmountDisks() error {
	if !c.Disks {
		return nil
	}
	var errs []error
	for _, node := range c.Names() {
		c.thaw(node)
		if err := unix.Unmount(c.dataDir(node), unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("unmount the disk of %s: %w", node, err))
		}
		if err := os.Remove(c.image(node)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// fill leaves no room on a node's disk; empty gives it back.
func (c *Cluster) fill(node string) error {
	f, err := os.Create(filepath.Join(c.dataDir(node), filler))
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	return nil
}

func (c *Cluster) empty(node string) error {
	err := os.Remove(filepath.Join(c.dataDir(node), filler))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Of linux/fs.h: _IOWR('X', 119, int) and 120.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

func (c *Cluster) freezer(node string, request uint) error {
	f, err := os.Open(c.dataDir(node))
	if err != nil {
		return err
	}
	defer f.Close()
	return os.NewSyscallError("ioctl", unix.IoctlSetInt(int(f.Fd()), request, 0))
}

// freeze has every write to a node's disk wait until thaw.
func (c *Cluster) freeze(node string) error { return c.freezer(node, fiFreeze) }

func (c *Cluster) thaw(node string) { _ = c.freezer(node, fiThaw) } // not frozen: what is wanted

// slow has a node's disk stand still most of the time: 150 ms of each 180.
func (c *Cluster) slow(ctx context.Context, node string, total time.Duration) error {
	defer c.thaw(node)
	for end := time.Now().Add(total); time.Now().Before(end) && ctx.Err() == nil; {
		if err := c.freeze(node); err != nil {
			return fmt.Errorf("freeze the disk of %s: %w", node, err)
		}
		wait(ctx, 150*time.Millisecond)
		c.thaw(node)
		wait(ctx, 30*time.Millisecond)
	}
	return ctx.Err()
}

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
