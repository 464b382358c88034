package run

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/internal/netlab"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/providers"
	"github.com/clusterplan/clusterplan/providers/local"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/statefile"
)

// Lab is the definition's network lab, with nodes by their names.
type Lab struct {
	*netlab.Lab
	record netlab.Record
	keys   map[string]string // seat by name
	names  map[string]string // name by seat
}

// Lab finds the network lab of this definition's nodes.
func (s *Session) Lab() (*Lab, error) {
	l := &Lab{Lab: local.Lab(s.dataDir()), keys: map[string]string{}, names: map[string]string{}}
	var err error
	if l.record, err = l.Record(); errors.Is(err, netlab.ErrNone) {
		return nil, &view.Hint{Err: fmt.Errorf("there is no network lab in %s", s.Dir),
			Hint: "Lab commands are for nodes in network namespaces: provider \"local\" { mode = \"netns\", subnet = \"10.77.0.0/24\" }, then clusterplan apply (as root)."}
	}
	if err != nil {
		return nil, err
	}
	if err := netlab.Allowed(); err != nil {
		return nil, err
	}
	l.know(s.Snap.State.Objects)
	for key := range l.record.Seats {
		if l.names[key] == "" {
			l.names[key] = key // an apply was cut off before the state knew it
		}
		l.keys[l.names[key]] = key
	}
	return l, nil
}

// know takes the seats' names from the state. While a node is replaced two have one name:
// it is the old one's, as in the cluster, which knows the new one by a name of its own.
func (l *Lab) know(objects []statefile.Object) {
	taken := map[string]bool{}
	for _, old := range []bool{true, false} {
		for i := range objects {
			o := &objects[i]
			var own providers.NodePrivate
			if o.Addr.Type != addr.TypeNode || (o.Addr.Deposed() != "") != old || json.Unmarshal(o.Private, &own) != nil {
				continue
			}
			l.keys[o.Addr.String()] = own.Dir
			if _, there := l.record.Seats[own.Dir]; !there {
				continue
			}
			name := nameOf(o)
			if taken[name] {
				name = providers.SuccessorName(name, o.ID)
			}
			l.names[own.Dir], taken[name] = name, true
		}
	}
}

// seat is the seat of a node, or of the client.
func (l *Lab) seat(name string) (string, error) {
	key, ok := l.keys[name]
	if _, there := l.record.Seats[key]; ok && there {
		return key, nil
	}
	var names []string
	for key := range l.record.Seats {
		names = append(names, l.names[key])
	}
	slices.Sort(names)
	return "", &view.Hint{Err: fmt.Errorf("the network lab has no %s", name), Hint: "It has: " + strings.Join(names, ", ")}
}

// Inflict adds faults between nodes by their names, and returns them in words.
func (l *Lab) Inflict(faults ...netlab.Fault) ([]netlab.Fault, error) {
	for i := range faults {
		f := &faults[i]
		for _, side := range []*string{&f.From, &f.To} {
			if *side == "" {
				continue
			}
			key, err := l.seat(*side)
			if err != nil {
				return nil, err
			}
			*side = key
		}
		if f.From != "" && f.From == f.To {
			return nil, fmt.Errorf("%s can't be cut from itself", l.names[f.From])
		}
	}
	if err := l.Lab.Inflict(faults...); err != nil {
		return nil, err
	}
	return l.named(faults), nil
}

// named has names where there were seats.
func (l *Lab) named(faults []netlab.Fault) []netlab.Fault {
	out := slices.Clone(faults)
	for i := range out {
		if out[i].From != "" {
			out[i].From = l.names[out[i].From]
		}
		if out[i].To != "" {
			out[i].To = l.names[out[i].To]
		}
	}
	return out
}

// Look says what there is of the lab and what is wrong with its wires.
func (l *Lab) Look() (view.Lab, error) {
	out := view.Lab{FormatVersion: client.FormatVersion, Switch: l.record.Switch, Networks: l.record.Networks(), Seats: []view.LabSeat{}, Faults: []netlab.Fault{}}
	for key, s := range l.record.Seats {
		seat := view.LabSeat{Name: l.names[key], Namespace: s.Namespace, MAC: s.MAC, Addresses: []string{}, Broken: []string{}}
		for _, a := range s.AllAddresses() {
			seat.Addresses = append(seat.Addresses, a.Addr().String())
		}
		broken, err := l.Check(key)
		if err != nil {
			return out, err
		}
		seat.Broken = append(seat.Broken, broken...)
		if !slices.Contains(broken, "namespace gone") {
			pids, err := netlab.Processes(s.Namespace)
			if err != nil {
				return out, err
			}
			seat.Processes = len(pids)
		}
		out.Seats = append(out.Seats, seat)
	}
	slices.SortFunc(out.Seats, func(a, b view.LabSeat) int { return strings.Compare(a.Name, b.Name) })
	faults, err := l.Faults()
	if err != nil {
		return out, err
	}
	out.Faults = append(out.Faults, l.named(faults)...)
	return out, nil
}

// Signal sends a signal to every process in a node's namespace; with SIGKILL it
// returns when they are gone.
func (l *Lab) Signal(name string, sig syscall.Signal) (int, error) {
	key, err := l.seat(name)
	if err != nil {
		return 0, err
	}
	send := func(ns string) (int, error) { return netlab.Signal(ns, sig) }
	if sig == syscall.SIGKILL {
		send = netlab.Kill
	}
	n, err := send(l.record.Seats[key].Namespace)
	if err == nil && n == 0 {
		err = fmt.Errorf("no process runs in the namespace of %s", name)
	}
	return n, err
}

// Exec runs a command in a node's namespace and returns its exit code; the
// error is why it could not be run.
func (l *Lab) Exec(name string, args []string, in io.Reader, out, errw io.Writer) (int, error) {
	key, err := l.seat(name)
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, errw
	if err := netlab.Start(l.record.Seats[key].Namespace, cmd); err != nil {
		return 0, fmt.Errorf("exec on %s: %w", name, err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}
