package view

import (
	"fmt"
	"io"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/statefile"
)

// StateEdit is what was done to the state by hand, or would be.
type StateEdit struct {
	Moved   []statefile.Move
	Removed []addr.Address
	// Imported are those that came into it.
	Imported []addr.Address
	Pushed   bool
	Same     bool // what was pushed was there
	DryRun   bool
	Serial   uint64 // of the state now
	Objects  int
	Backup   string // the state before; "": there was none
}

// JSON writes it as one object.
func (e StateEdit) JSON(w io.Writer) error {
	moved := e.Moved
	if moved == nil {
		moved = []statefile.Move{}
	}
	removed := e.Removed
	if removed == nil {
		removed = []addr.Address{}
	}
	imported := e.Imported
	if imported == nil {
		imported = []addr.Address{}
	}
	return JSON(w, map[string]any{"format_version": planner.FormatVersion, "moved": moved, "removed": removed, "imported": imported, "dry_run": e.DryRun,
		"serial": e.Serial, "objects": e.Objects, "backup": e.Backup})
}

// StateEdit writes what was done to the state by hand.
func (s Style) StateEdit(w io.Writer, e StateEdit) error {
	move, remove := "Moved", "Forgot"
	if e.DryRun {
		move, remove = "Would move", "Would forget"
	}
	for _, m := range e.Moved {
		fmt.Fprintf(w, "%s %s to %s\n", move, m.From, m.To)
	}
	for _, a := range e.Removed {
		fmt.Fprintf(w, "%s %s\n", remove, a)
	}
	for _, a := range e.Imported {
		fmt.Fprintf(w, "%s %s. clusterplan plan shows how it differs from the definition.\n", s.Green("Imported"), a)
	}
	switch {
	case e.DryRun:
		_, err := fmt.Fprintln(w, "Nothing was changed.")
		return err
	case e.Same:
		_, err := fmt.Fprintln(w, "The state is that already. Nothing was changed.")
		return err
	case e.Pushed:
		fmt.Fprintf(w, "%s Serial %d, %d objects.\n", s.Green("Pushed."), e.Serial, e.Objects)
	}
	if len(e.Removed) > 0 {
		fmt.Fprintln(w, "They go on as they are. Nothing manages them any more.")
	}
	if e.Backup == "" {
		return nil
	}
	_, err := fmt.Fprintf(w, "The state before it is kept in %s.\n", e.Backup)
	return err
}
