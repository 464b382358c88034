package monitor

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds one order or word, so that a confused peer costs a bounded
// amount of memory: a start with a large environment is far below it.
const maxLine = 4 << 20

// errLine is a line that is no order or word. The stream is still in step: the
// line was read to its end.
var errLine = errors.New("not understood")

// lineReader reads JSON values, one a line.
type lineReader struct {
	r *bufio.Reader
}

func newLineReader(r io.Reader) *lineReader { return &lineReader{r: bufio.NewReaderSize(r, 4096)} }

// read decodes the next line into v. errLine (wrapped) means that this line is
// to be left out and the next one may be read; other errors end the stream.
func (l *lineReader) read(v any) error {
	line, err := l.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		line, err = l.long(line)
	}
	if err != nil {
		if len(line) > 0 && errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("%w: %w", errLine, err)
	}
	return nil
}

// long goes on where a line is longer than the reader's buffer.
func (l *lineReader) long(head []byte) ([]byte, error) {
	line := append([]byte(nil), head...)
	for {
		part, err := l.r.ReadSlice('\n')
		if len(line)+len(part) > maxLine {
			return nil, fmt.Errorf("a line is longer than %d bytes", maxLine)
		}
		line = append(line, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// encodeLine is v as one line.
func encodeLine(v any) ([]byte, error) {
	line, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(line) >= maxLine {
		return nil, fmt.Errorf("%d bytes are too long for one line (the most is %d)", len(line), maxLine)
	}
	return append(line, '\n'), nil
}
