package main

import "testing"

// A short measurement comes to its end and has measured something.
func TestSmoke(t *testing.T) {
	out, err := run(300, 2, 3)
	if err != nil {
		t.Fatal(err)
	}
	if out.Lines < 250 || out.Objects < 40 || out.Completion.Median <= 0 || out.Diagnostics.Median <= 0 || out.Broken.Median <= 0 || out.Hover.Median <= 0 || out.CPU <= 0 {
		t.Errorf("%+v", out)
	}
}
