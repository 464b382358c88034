package command

import (
	"bufio"
	"errors"
	"fmt"
	"strings"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/run"
	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/view"
)

// canAsk tells whether somebody can answer.
func (a *app) canAsk() bool { return a.input && view.Terminal(a.in) }

// confirm asks. instead is the flag that does without.
func (a *app) confirm(question, instead string) (bool, error) {
	if !a.canAsk() {
		return false, hint(errors.New("this has to be confirmed, and there is no terminal to ask on"), "Use %s to go on without a question.", instead)
	}
	fmt.Fprintf(a.out, "%s\n  Only yes is taken for yes: ", a.style.Bold(question))
	if a.unread() {
		return false, hint(errors.New("nobody sees the question: what reads stdout has ended"), "Use %s to go on without a question.", instead)
	}
	answer := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(a.in).ReadString('\n')
		answer <- strings.TrimSpace(text)
	}()
	select {
	case text := <-answer:
		fmt.Fprintln(a.out)
		return text == "yes", nil
	case <-a.stop:
		fmt.Fprintln(a.out)
		return false, run.ErrInterrupted
	}
}
