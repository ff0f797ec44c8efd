// Package composetest proves the files of deploy/ and docker-compose.yml on the
// tools that read them. It has tests only.
//
// What is promised:
//
//   - The compose file is valid for the docker-compose that is installed, the
//     units for systemd-analyze, and the configuration files name flags that
//     the commands have ([TestComposeFile], [TestUnits], [TestConfigFiles]).
//   - The users and capabilities that the units give are enough
//     ([TestUnitPrivileges]).
//   - logrotate rotates the transfer logs ([TestLogrotateConf]).
//   - nginx serves the tree, and neither the staging nor hidden files
//     ([TestNginxConf]).
//   - `docker-compose up --build` gives a source and three nodes whose web
//     servers answer with what the source holds, through changes of every
//     kind, a node that was away and a broker that was killed
//     ([TestComposeStory]).
//
// A tool that is not installed skips its test, and fails it where CI=true. The
// story needs a Docker engine, is skipped without one and with -short, and
// takes about two minutes, most of them for compiling in the image.
//
// Where no registry answers, the story makes stand-ins for the images that the
// Dockerfile and the compose file name, from Debian's packages and the Go
// toolchain that runs the test. They carry the label org.treecast.stand-in and
// stay for the next run; an image that is there already is never replaced.
//
// It imports nothing of this module: it is outside of its floors.
package composetest
