package view

import (
	"bytes"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/runtime/api/client"
)

const evil = "ok\x1b]0;owned\x07\x1b[2J\r\u202e\u009b1m\nnode.n9 up"

// fillTexts puts evil into every text of a value.
func fillTexts(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(evil)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillTexts(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillTexts(v.Index(0))
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fillTexts(v.Field(i))
			}
		}
	}
}

// Whatever agents say of anything, in any field, nothing of it moves a terminal's
// cursor, nor makes a line of its own; and what was given is left as it was.
func TestAgentsTextsAreTamed(t *testing.T) {
	var st client.Status
	fillTexts(reflect.ValueOf(&st).Elem())
	st.Quorum.LostSince = nil
	var e client.Event
	fillTexts(reflect.ValueOf(&e).Elem())
	e.Time = time.Unix(1, 0)
	before, _ := json.Marshal(st)
	for name, write := range map[string]func(io.Writer) error{
		"status": func(w io.Writer) error { return Style{}.Status(w, &st) },
		"event":  func(w io.Writer) error { return Style{}.Event(w, e) },
		"text":   func(w io.Writer) error { _, err := io.WriteString(w, Tame(evil)); return err },
	} {
		var out bytes.Buffer
		if err := write(&out); err != nil {
			t.Fatal(err)
		}
		if i := strings.IndexFunc(out.String(), moves); i >= 0 || !strings.Contains(out.String(), "owned") {
			t.Errorf("%s: %q at byte %d", name, out.String(), i)
		}
		for line := range strings.Lines(out.String()) {
			if strings.HasPrefix(line, "node.n9") {
				t.Errorf("%s has a line that nobody of this program wrote: %q", name, line)
			}
		}
	}
	if after, _ := json.Marshal(st); !bytes.Equal(before, after) {
		t.Error("the status itself was changed")
	}
}

// A log comes in pieces that end anywhere.
func TestTameWriter(t *testing.T) {
	const log = "grün\tgelb\r\n\x1b[31mred\x1b[0m 10%\r20%\xff€\n"
	const want = "grün\tgelb\n\uFFFD[31mred\uFFFD[0m 10%\uFFFD20%\uFFFD€\n"
	for size := 1; size <= len(log); size++ {
		var out bytes.Buffer
		w := TameWriter(&out)
		for rest := log; rest != ""; {
			piece := rest[:min(size, len(rest))]
			if n, err := w.Write([]byte(piece)); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
			rest = rest[len(piece):]
		}
		if out.String() != want {
			t.Errorf("in pieces of %d: %q", size, out.String())
		}
	}
}
