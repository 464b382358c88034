package run

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/planner/planfile"
)

// allocated is what f takes of the heap, all in all.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// What is larger than any plan file or state is refused before it is read.
func TestFilesOfNoSize(t *testing.T) {
	huge := filepath.Join(t.TempDir(), "huge")
	if err := errors.Join(os.WriteFile(huge, []byte("{\n  \"kind\": \"clusterplan plan\",\n"), 0o600), os.Truncate(huge, planfile.Limit+1)); err != nil {
		t.Fatal(err) // a file with a hole: it takes no room
	}
	for name, read := range map[string]func() error{
		"plan file": func() error { _, err := ReadPlan(huge); return err },
		"state":     func() error { _, _, err := ReadPushed(huge, nil); return err },
	} {
		var err error
		if took := allocated(func() { err = read() }); took > 1<<20 {
			t.Errorf("%s: %d bytes of memory", name, took)
		}
		if !errors.Is(err, errTooLarge) || !strings.Contains(err.Error(), huge) || !strings.Contains(err.Error(), "1073741825") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadPlan(huge); !errors.Is(err, planfile.ErrNotPlan) {
		t.Error(err)
	}
}

// What does not say how long it is is read up to the bound, and no further.
func TestReadAtMost(t *testing.T) {
	const most = 4096
	endless := &endless{}
	if _, err := readAtMost(endless, most); !errors.Is(err, errTooLarge) || endless.read > 4*most {
		t.Errorf("%d bytes read: %v", endless.read, err)
	}
	if data, err := readAtMost(io.LimitReader(endless, most), most); err != nil || len(data) != most {
		t.Errorf("%d bytes: %v", len(data), err)
	}
	if name, data, err := ReadPushed("-", strings.NewReader("{}")); name != "stdin" || string(data) != "{}" || err != nil {
		t.Errorf("%s %q %v", name, data, err)
	}
}

// endless is a reader without an end.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}
