package scenario

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"path/filepath"
	"strings"
)

// JUnit's XML, as CI servers read it: a suite a file, a test case a scenario.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
	virtual  int64
}

type junitCase struct {
	Name      string        `xml:"name,attr"`
	ClassName string        `xml:"classname,attr"`
	File      string        `xml:"file,attr"`
	Line      int           `xml:"line,attr"`
	Time      string        `xml:"time,attr"`
	Failure   *junitFailure `xml:"failure,omitempty"`
	Error     *junitFailure `xml:"error,omitempty"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes the results as JUnit's XML. Times are virtual seconds.
func (r *Results) JUnit() ([]byte, error) {
	all := junitSuites{Name: "clusterplan simulate " + r.Cluster, Suites: []junitSuite{}}
	var total int64
	for i := range r.Scenarios {
		s := &r.Scenarios[i]
		if n := len(all.Suites); n == 0 || all.Suites[n-1].Name != s.File {
			all.Suites = append(all.Suites, junitSuite{Name: s.File})
		}
		suite := &all.Suites[len(all.Suites)-1]
		c := junitCase{
			Name: s.Name, ClassName: strings.TrimSuffix(filepath.Base(s.File), Suffix), File: s.File, Line: s.Line, Time: seconds(s.VirtualMS),
		}
		switch first, text := s.failures(); {
		case s.Error != "":
			c.Error = &junitFailure{Message: s.Error, Type: "error", Text: text}
			suite.Errors++
			all.Errors++
		case first != nil:
			c.Line = first.Line
			c.Failure = &junitFailure{Message: fmt.Sprintf("%s:%d: %s", first.File, first.Line, first.Message), Type: "expectation", Text: text}
			suite.Failures++
			all.Failures++
		}
		suite.Cases = append(suite.Cases, c)
		suite.Tests++
		all.Tests++
		suite.virtual += s.VirtualMS
		total += s.VirtualMS
		suite.Time, all.Time = seconds(suite.virtual), seconds(total)
	}
	if all.Time == "" {
		all.Time = seconds(0)
	}
	var b bytes.Buffer
	b.WriteString(xml.Header)
	enc := xml.NewEncoder(&b)
	enc.Indent("", "  ")
	if err := enc.Encode(all); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

func seconds(ms int64) string { return fmt.Sprintf("%d.%03d", ms/1000, ms%1000) }

// failures are the first one, and all of them in lines.
func (r *Result) failures() (first *Failure, text string) {
	var b strings.Builder
	for i := range r.Steps {
		s := &r.Steps[i]
		for j := range s.Failures {
			f := &s.Failures[j]
			if first == nil {
				first = f
			}
			fmt.Fprintf(&b, "%s:%d: step %d, %s: %s\n", f.File, f.Line, s.N, s.Name, f.Message)
		}
	}
	return first, b.String()
}
