package view

import (
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Tame is a copy of v for a line on a terminal. Agents, programs and other people
// wrote its texts: what would move a cursor or turn text is a replacement
// character in the copy, and a new line or a tab a blank.
func Tame[T any](v T) T {
	out := reflect.New(reflect.TypeFor[T]()).Elem()
	tame(out, reflect.ValueOf(&v).Elem())
	return out.Interface().(T)
}

func tame(into, from reflect.Value) {
	into.Set(from)
	switch from.Kind() {
	case reflect.String:
		into.SetString(strings.NewReplacer("\n", " ", "\t", " ").Replace(plain(from.String())))
	case reflect.Pointer:
		if !from.IsNil() {
			into.Set(reflect.New(from.Type().Elem()))
			tame(into.Elem(), from.Elem())
		}
	case reflect.Slice:
		if !from.IsNil() {
			into.Set(reflect.MakeSlice(from.Type(), from.Len(), from.Len()))
			for i := range from.Len() {
				tame(into.Index(i), from.Index(i))
			}
		}
	case reflect.Struct:
		for i := range from.NumField() {
			if from.Type().Field(i).IsExported() { // a time has nothing of the kind
				tame(into.Field(i), from.Field(i))
			}
		}
	}
}

// TameWriter is w for a stream of lines that programs print, on a terminal:
// nothing that goes through it moves the cursor but new lines and tabs.
func TameWriter(w io.Writer) io.Writer { return &tameWriter{w: w} }

type tameWriter struct {
	w    io.Writer
	rest []byte // of a character, or of an end of line, that was cut
}

func (t *tameWriter) Write(p []byte) (int, error) {
	data := append(t.rest, p...)
	t.rest = nil
	var b strings.Builder
	for len(data) > 0 {
		if !utf8.FullRune(data) || len(data) == 1 && data[0] == '\r' {
			t.rest = append([]byte(nil), data...)
			break
		}
		r, n := utf8.DecodeRune(data) // of what is no UTF-8 the replacement character, byte by byte
		switch {
		case r == '\r' && data[1] == '\n':
		case moves(r):
			b.WriteRune('\uFFFD')
		default:
			b.WriteRune(r)
		}
		data = data[n:]
	}
	if _, err := io.WriteString(t.w, b.String()); err != nil {
		return 0, err
	}
	return len(p), nil
}
