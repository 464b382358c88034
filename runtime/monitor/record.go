package monitor

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/clusterplan/clusterplan/internal/atomicfile"
	"github.com/clusterplan/clusterplan/runtime/address"
	"github.com/clusterplan/clusterplan/runtime/resource"
)

// record is what a monitor leaves on disk for the next one: which processes
// may be left of it, and the newest epoch of each group that it has seen. It
// is written and synced before what it tells of is started.
type record struct {
	path  string
	token string // of this monitor: in the environment of all that it starts

	rebooted bool // the host has been reset since the last monitor

	saving sync.Mutex // held while it is changed and written; taken before mu
	mu     sync.Mutex // guards data; never held while the disk is waited for
	data   recordData
}

// recordData is record.json.
type recordData struct {
	Boot      string            `json:"boot"`              // the boot that the processes belong to
	Tokens    []string          `json:"tokens"`            // of monitors that may have left something
	Cgroups   []string          `json:"cgroups,omitempty"` // of monitors that may have left something
	Guardians []processID       `json:"guardians"`         // of guardians that may live
	Epochs    map[string]uint64 `json:"epochs"`            // by group id
	Undo      []undo            `json:"undo,omitempty"`    // to run, the last first
	Devices   []address.Left    `json:"devices,omitempty"` // that may be there, with addresses on them
}

// undo is a program that takes back what a script did to the host.
type undo struct {
	ID      uint64           `json:"id"`
	Program resource.Program `json:"program"`
}

// processID names a process for good, within one boot.
type processID struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // in clock ticks since boot
}

// openRecord reads the record of the earlier monitors, if there is one. A damaged one is moved aside and told by the second result.
func openRecord(path string) (*record, error, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, nil, fmt.Errorf("read the boot's id: %w", err)
	}
	r := &record{path: path, token: newToken()}
	var damage error
	b, err := os.ReadFile(r.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, nil, fmt.Errorf("read the record of what runs: %w", err)
	default:
		if err := json.Unmarshal(b, &r.data); err != nil {
			damage = fmt.Errorf("%s is damaged (%w); it is kept as %s.damaged", r.path, err, filepath.Base(r.path))
			r.data = recordData{}
			if err := os.Rename(r.path, r.path+".damaged"); err != nil {
				return nil, nil, fmt.Errorf("%w: %w", damage, err)
			}
		}
	}
	if now := strings.TrimSpace(string(boot)); r.data.Boot != now {
		// No process lives through a boot, and ids begin anew.
		r.rebooted = true
		r.data.Boot, r.data.Tokens, r.data.Guardians, r.data.Devices, r.data.Cgroups = now, nil, nil, nil, nil
		// What a script had changed may well: it stays to be undone.
	}
	if r.data.Epochs == nil {
		r.data.Epochs = map[string]uint64{}
	}
	return r, damage, nil
}

func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// cleaned keeps that nothing is left of earlier monitors, and this one's token and
// cgroup, on disk. Nothing may be started before.
func (r *record) cleaned(cgroup string) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	r.data.Tokens, r.data.Guardians, r.data.Devices, r.data.Cgroups = []string{r.token}, nil, nil, nil
	if cgroup != "" {
		r.data.Cgroups = []string{cgroup}
	}
	r.mu.Unlock()
	return r.save()
}

// left is what earlier monitors may have left: their tokens and guardians.
func (r *record) left() (tokens []string, guardians []processID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.data.Tokens, append([]processID(nil), r.data.Guardians...)
}

// cgroups are those that earlier monitors may have left processes in.
func (r *record) cgroups() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.data.Cgroups)
}

// devices are what earlier monitors may have left in the network.
func (r *record) devices() []address.Left {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.data.Devices)
}

// adding keeps the device that an address is about to be added to, on disk; one
// that it knows costs nothing.
func (r *record) adding(d address.Left) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	known := slices.Contains(r.data.Devices, d)
	if !known {
		r.data.Devices = append(r.data.Devices, d)
	}
	r.mu.Unlock()
	if known {
		return nil
	}
	err := r.save()
	if err != nil {
		r.mu.Lock()
		r.data.Devices = slices.DeleteFunc(r.data.Devices, func(x address.Left) bool { return x == d })
		r.mu.Unlock()
	}
	return err
}

// epoch is the newest epoch of a group that was seen. It never waits for the
// disk: the loop asks.
func (r *record) epoch(group string) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.data.Epochs[group]
}

// maxEpochs bounds the groups whose epochs are kept: what a cluster has had
// over the years, and far less than would slow the writing down.
const maxEpochs = 4096

// see keeps a group's epoch, on disk.
func (r *record) see(group string, epoch uint64) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	old, isNew := r.note(group, epoch)
	if !isNew {
		return nil
	}
	err := r.save()
	if err != nil {
		r.mu.Lock()
		r.data.Epochs[group] = old
		r.mu.Unlock()
	}
	return err
}

// note takes an epoch, and returns the one before; false: it is not newer.
func (r *record) note(group string, epoch uint64) (old uint64, isNew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, known := r.data.Epochs[group]
	if epoch <= old && known {
		return old, false
	}
	if !known && len(r.data.Epochs) >= maxEpochs {
		// Epochs are the cluster's log indexes or alike: the oldest is of a
		// group long gone.
		least := group
		for g, e := range r.data.Epochs {
			if least == group || e < r.data.Epochs[least] {
				least = g
			}
		}
		delete(r.data.Epochs, least)
	}
	r.data.Epochs[group] = epoch
	return old, true
}

// started keeps a guardian, on disk.
func (r *record) started(pid int, start uint64) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	r.data.Guardians = append(r.data.Guardians, processID{pid, start})
	r.mu.Unlock()
	return r.save()
}

// ended drops a guardian. The next save writes it: one that is gone does no
// harm in the record.
func (r *record) ended(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, g := range r.data.Guardians {
		if g.PID == pid {
			r.data.Guardians = append(r.data.Guardians[:i], r.data.Guardians[i+1:]...)
			return
		}
	}
}

// undo keeps a program, on disk.
func (r *record) undo(p resource.Program) (uint64, error) {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	var id uint64
	for _, u := range r.data.Undo {
		id = max(id, u.ID)
	}
	id++
	r.data.Undo = append(r.data.Undo, undo{ID: id, Program: p})
	r.mu.Unlock()
	err := r.save()
	if err != nil {
		r.mu.Lock()
		r.data.Undo = slices.DeleteFunc(r.data.Undo, func(u undo) bool { return u.ID == id })
		r.mu.Unlock()
	}
	return id, err
}

// undone drops one, on disk: run later, when the group is elsewhere, it might
// do harm.
func (r *record) undone(id uint64) error {
	r.saving.Lock()
	defer r.saving.Unlock()
	r.mu.Lock()
	was := slices.Clone(r.data.Undo)
	r.data.Undo = slices.DeleteFunc(r.data.Undo, func(u undo) bool { return u.ID == id })
	r.mu.Unlock()
	err := r.save()
	if err != nil { // still owed, and its number no other's
		r.mu.Lock()
		r.data.Undo = was
		r.mu.Unlock()
	}
	return err
}

// toUndo is what is to be run, in that order.
func (r *record) toUndo() []undo {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := slices.Clone(r.data.Undo)
	slices.Reverse(out)
	return out
}

// nothingToUndo tells whether no script has left anything on.
func (r *record) nothingToUndo() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.data.Undo) == 0
}

// save writes the record; the caller holds saving, and not mu.
func (r *record) save() error {
	if r.path == "" {
		return nil // a separate monitor's: the node's monitor keeps it
	}
	r.mu.Lock()
	b, err := json.Marshal(r.data)
	r.mu.Unlock()
	if err == nil {
		err = atomicfile.Write(r.path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the record of what runs: %w", err)
	}
	return nil
}

// takeLock takes the lock in the file path, the node's, which proves that no other monitor of the
// node lives: it is held by the process alone (no child inherits it) and goes
// with it. It waits as long as another has it; wait is then called first with
// that one's process id.
func takeLock(path string, wait func(holder string)) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take the node's lock: %w", err)
	}
	how := unix.LOCK_EX | unix.LOCK_NB
	for {
		err := unix.Flock(int(f.Fd()), how)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EWOULDBLOCK) {
			b := make([]byte, 32)
			n, _ := f.ReadAt(b, 0)
			wait(strings.TrimSpace(string(b[:n])))
			how = unix.LOCK_EX
			continue
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("take the node's lock %s: %w", path, err)
		}
		break
	}
	// For people only: whose lock it is.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(fmt.Sprintf("%d\n", os.Getpid())), 0)
	}
	return f, nil
}
