package run

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
	"github.com/clusterplan/clusterplan/statefile"
)

// errTooLarge is of a file that is larger than any that clusterplan writes.
var errTooLarge = errors.New("no file that clusterplan writes has so many bytes")

// readAtMost reads all of r. A file with more than most bytes is not read, of what
// does not say how much it holds no more than that: the error wraps errTooLarge.
func readAtMost(r io.Reader, most int64) ([]byte, error) {
	if f, ok := r.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > most {
			return nil, fmt.Errorf("%w: %d", errTooLarge, info.Size())
		}
	}
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		return nil, fmt.Errorf("%w: more than %d", errTooLarge, most)
	}
	return data, err
}

// ReadPushed reads what is to become the state from a file, or with "-" from in,
// and tells what to call it.
func ReadPushed(path string, in io.Reader) (name string, data []byte, err error) {
	if name = path; path == "-" {
		name = "stdin"
	} else {
		f, err := os.Open(path)
		if err != nil {
			return name, nil, err
		}
		defer f.Close()
		in = f
	}
	if data, err = readAtMost(in, statefile.Limit); errors.Is(err, errTooLarge) {
		err = &view.Hint{Err: fmt.Errorf("%s is no state: %w", name, err), Hint: "Name the file that state pull wrote, or a backup. Nothing was changed."}
	}
	return name, data, err
}
