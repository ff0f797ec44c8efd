package treecast_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestStories runs testdata/script/*.txtar. A story has a cluster in $WORK:
// the source a, the nodes it starts, and these commands besides testscript's:
//
//	broker|publisher [flag...]   start it
//	server FILE                  start the stock nats-server with a configuration in the broker's place
//	node NAME [flag...]          start a node that keeps $WORK/NAME
//	down|crash|freeze|thaw NAME  SIGTERM and wait | SIGKILL and wait | SIGSTOP | SIGCONT
//	hosts NAME...                put these processes on hosts of their own, before anything runs
//	cut|splice NAME              its cable, without a word to either side
//	slow NAME RATE               let no more through its cable, 1mbit say
//	exits NAME CODE              wait for a process to end by itself
//	logged NAME TEXT             wait until its log has TEXT
//	judge [-- rsync option...]   wait until rsync -anic --delete finds nothing on every node
//	judgeof NAME [-- option...]  the same for one node
//	sh SCRIPT                    run a shell script, or the file FILE.sh, in $WORK; must succeed
//	eventually SCRIPT            retry a shell script until it succeeds
//
// The condition [root] holds for root; on CI it must.
func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			c, err := newCluster(env.WorkDir, func(format string, args ...any) {
				env.T().Log(fmt.Sprintf(format, args...))
			})
			if err != nil {
				return err
			}
			env.Values[clusterKey{}] = c
			env.Setenv("NATS_URL", c.url)
			env.Setenv("LC_ALL", "C")
			env.Setenv("HOME", env.WorkDir)
			root, err := os.Getwd()
			if err != nil {
				return err
			}
			env.Setenv("REPO", root)
			env.Defer(func() {
				c.stopAll()
				if f, ok := env.T().(interface{ Failed() bool }); ok && f.Failed() {
					c.printLogs()
					c.tidy()
				}
			})
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("no such condition: %s", cond)
			}
			root := os.Geteuid() == 0
			if !root && os.Getenv("CI") == "true" {
				return false, errors.New("CI must be root: a skipped story proves nothing")
			}
			return root, nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"broker":    func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(of(ts).broker(args...)) },
			"server":    func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(of(ts).stockServer(args[0])) },
			"publisher": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(of(ts).publisher(args...)) },
			"node": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(of(ts).node(args[0], args[1:]...))
			},
			"down": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(of(ts).stop(args[0], syscall.SIGTERM))
			},
			"crash": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(of(ts).stop(args[0], syscall.SIGKILL))
			},
			"freeze": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(of(ts).signal(args[0], syscall.SIGSTOP))
			},
			"thaw": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(of(ts).signal(args[0], syscall.SIGCONT))
			},
			"hosts": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(of(ts).addHosts(args))
				ts.Setenv("NATS_URL", of(ts).url)
			},
			"cut":    func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(of(ts).network.cut(args[0])) },
			"splice": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(of(ts).network.splice(args[0])) },
			"slow": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(of(ts).network.limit(args[0], args[1]))
			},
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				code, err := of(ts).awaitExit(args[0])
				ts.Check(err)
				if want, err := strconv.Atoi(args[1]); err != nil || code != want {
					ts.Fatalf("%s: exit code %d, want %s", args[0], code, args[1])
				}
			},
			"logged": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(of(ts).awaitLog(args[0], strings.Join(args[1:], " ")))
			},
			"judge": func(ts *testscript.TestScript, _ bool, args []string) {
				if len(args) > 0 && args[0] == "--" {
					args = args[1:]
				}
				ts.Check(of(ts).judge(args))
			},
			"judgeof": func(ts *testscript.TestScript, _ bool, args []string) {
				opts := args[1:]
				if len(opts) > 0 && opts[0] == "--" {
					opts = opts[1:]
				}
				ts.Check(of(ts).judge(opts, args[0]))
			},
			"sh": func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(shell(ts, args[0])) },
			"eventually": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(of(ts).await(args[0], func() error { return shell(ts, args[0]) }))
			},
		},
	})
}

type clusterKey struct{}

func of(ts *testscript.TestScript) *cluster {
	c, ok := ts.Value(clusterKey{}).(*cluster)
	if !ok {
		ts.Fatalf("no cluster")
	}
	return c
}

// shell runs a script with the story's environment.
func shell(ts *testscript.TestScript, script string) error {
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", script)
	if strings.HasSuffix(script, ".sh") {
		cmd = exec.Command("bash", "-euxo", "pipefail", script)
	}
	cmd.Dir = ts.Getenv("WORK")
	cmd.Env = append(os.Environ(), "NATS_URL="+ts.Getenv("NATS_URL"), "LC_ALL=C", "HOME="+cmd.Dir, "REPO="+ts.Getenv("REPO"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
