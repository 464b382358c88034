package view

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/clusterplan/clusterplan/internal/netlab"
)

// Lab is a network lab, as `lab status --json` prints it.
type Lab struct {
	FormatVersion string         `json:"format_version"`
	Switch        string         `json:"switch"`   // namespace
	Networks      []string       `json:"networks"` // names; the nodes' own first
	Seats         []LabSeat      `json:"seats"`    // by name
	Faults        []netlab.Fault `json:"faults"`   // in the order in which they came
}

// LabSeat is a node's, or the client's, namespace.
type LabSeat struct {
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	MAC       string   `json:"mac"`
	Addresses []string `json:"addresses"` // on all networks, in their order
	Processes int      `json:"processes"`
	Broken    []string `json:"broken"` // what of it is not there; apply mends it
}

// Lab writes a network lab as tables.
func (s Style) Lab(w io.Writer, l Lab) error {
	var b strings.Builder
	rows := [][]string{s.head("SEAT", "ADDRESS", "NAMESPACE", "MAC", "PROCESSES", "")}
	for _, n := range l.Seats {
		rows = append(rows, []string{n.Name, strings.Join(n.Addresses, " "), n.Namespace, n.MAC, strconv.Itoa(n.Processes), s.Red(strings.Join(n.Broken, ", "))})
	}
	if err := table(&b, rows); err != nil {
		return err
	}
	b.WriteString("\n")
	if len(l.Networks) > 1 {
		fmt.Fprintf(&b, "Networks: %s\n", strings.Join(l.Networks, ", "))
	}
	for _, f := range l.Faults {
		fmt.Fprintln(&b, s.Red(f.String()))
	}
	if len(l.Faults) == 0 {
		b.WriteString("Nothing is cut and nothing is lost.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
