package command

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/term"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
)

func (a *app) consoleCommand() *cobra.Command {
	var dir string
	var vars variables
	var asJSON bool
	c := &cobra.Command{
		Use:   "console",
		Short: "Try expressions of a definition",
		Long: long(`
Console reads expressions, one a line, and prints what each is: var.x, local.x,
node.n, group.web, output.x of the last apply, and all functions. The address of a
resource shows the resource, type(...) the type of an expression. What an apply
will know is (known after apply), and sensitive values are not shown. Nothing is
changed or locked, and no node is asked.

On a terminal, Tab completes names, and exit or Ctrl-D ends it. From elsewhere the
lines are read to their end, or to the first that is wrong; with --json each is
answered with a JSON object in a line.`, helpDone, helpError+"; from no terminal also of an expression", helpInterrupted),
		Example: "  clusterplan --chdir examples/quickstart console\n  echo 'cidrhost(\"10.0.0.0/24\", 5)' | clusterplan console --dir examples/quickstart",
		Args:    none,
		RunE: func(cmd *cobra.Command, _ []string) error {
			inputs, err := vars.inputs(false)
			if err != nil {
				return err
			}
			s, err := run.Open(dir, run.Options{Version: Version, Stop: a.stop, Vars: inputs})
			if err != nil {
				return err
			}
			defer s.Close()
			con, err := s.Console(cmd.Context())
			if err != nil {
				return err
			}
			a.errStyle.Diagnostics(a.err, con.Diags, s.Config.Files())
			return a.console(con, asJSON)
		},
	}
	dirFlag(c, &dir)
	vars.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line (docs/json.md)")
	return c
}

// console asks line after line.
func (a *app) console(con *run.Console, asJSON bool) error {
	read, talks := a.lines(), false
	if in, ok := a.in.(*os.File); ok && a.canAsk() && a.screen && !asJSON {
		read, talks = terminalLines(in, a.out, con.Words), true
	}
	for {
		line, err := a.nextLine(read)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		switch line = strings.TrimSpace(line); {
		case line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "//"):
			continue
		case line == "exit":
			return nil
		case line == "help" && !asJSON:
			if _, err := fmt.Fprintln(a.out, "An expression, as var.x, node.n, length(local.list), or type(...) around one. exit ends this."); err != nil {
				return err
			}
			continue
		}
		v, onlyType, err := con.Ask(line)
		if asJSON {
			if err := a.answerJSON(line, v, onlyType, err); err != nil {
				return err
			}
			continue
		}
		if err != nil && talks && !cutOff(err) {
			a.errStyle.Error(a.err, err)
			continue
		}
		if err != nil {
			return err
		}
		if err := view.Answer(a.out, v, onlyType); err != nil {
			return err
		}
	}
}

// answerJSON prints an answer as a line of JSON; of an expression that is wrong its
// diagnostics, which end the command.
func (a *app) answerJSON(expression string, v cty.Value, onlyType bool, err error) error {
	var wrong *view.DiagnosticsError
	if err != nil && (!errors.As(err, &wrong) || cutOff(err)) {
		return err
	}
	if wrong != nil {
		return errors.Join(view.AnswerJSON(a.out, expression, v, onlyType, view.JSONDiagnostics(wrong.Diags, wrong.Files)), status(exitError))
	}
	return view.AnswerJSON(a.out, expression, v, onlyType, nil)
}

// nextLine is a line, or the end of the program while it waits for one.
func (a *app) nextLine(read func() (string, error)) (string, error) {
	type got struct {
		line string
		err  error
	}
	ch := make(chan got, 1)
	go func() {
		line, err := read()
		ch <- got{line, err}
	}()
	select {
	case g := <-ch:
		return g.line, g.err
	case <-a.stop:
		return "", run.ErrInterrupted
	}
}

// lines reads what is no terminal. The last line needs no end.
func (a *app) lines() func() (string, error) {
	in := bufio.NewReader(a.in)
	return func() (string, error) {
		line, err := in.ReadString('\n')
		if errors.Is(err, io.EOF) && line != "" {
			err = nil
		}
		return line, err
	}
}

// terminalLines reads a terminal, which does nothing by itself only while a line
// is typed: answers are written as by any program.
func terminalLines(in *os.File, out io.Writer, words []string) func() (string, error) {
	fd := int(in.Fd())
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, out}, "> ")
	t.AutoCompleteCallback = func(line string, pos int, key rune) (string, int, bool) {
		if key != '\t' {
			return "", 0, false
		}
		more := completion(line[:pos], words)
		return line[:pos] + more + line[pos:], pos + len(more), true
	}
	return func() (string, error) {
		if w, h, err := term.GetSize(fd); err == nil && w > 0 {
			_ = t.SetSize(w, h)
		}
		old, err := term.MakeRaw(fd)
		if err != nil {
			return "", err
		}
		defer term.Restore(fd, old)
		return t.ReadLine()
	}
}

// completion is what all words that go on with the last word of line have in
// common behind it.
func completion(line string, words []string) string {
	last := line[strings.LastIndexAny(line, " \t([{,=!<>+-*/%&|?:$")+1:]
	if last == "" {
		return ""
	}
	var more string
	found := false
	for _, w := range words {
		rest, ok := strings.CutPrefix(w, last)
		if !ok {
			continue
		}
		if !found {
			more, found = rest, true
		}
		n := 0
		for n < len(more) && n < len(rest) && more[n] == rest[n] {
			n++
		}
		more = more[:n]
	}
	return more
}
