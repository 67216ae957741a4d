"""``d2l launch``: start a script as the workers of one job, watch over it, start it again.

This module reads the command line, places the processes on the hosts, and says what each of them
finds in its environment; ``_supervise`` runs the job.  MXNet is not imported.
"""
import argparse
import dataclasses
import os
import shlex
import socket
import sys
import time
from typing import Optional

from d2l.parallel import _agent, _report, _supervise

PARAMETER_SERVER = ('dist_sync', 'dist_async')  # the stores that need servers and a scheduler
STORES = PARAMETER_SERVER + ('ring', 'horovod', 'local', 'device')
ALONE = ('local', 'device')  # the stores by which workers do not wait for each other
SERVER = 'd2l.parallel.server'
SSH = 'ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=5'
# What of the environment belongs to a host, and is not handed to another.
OF_THE_HOST = ('HOME', 'HOSTNAME', 'LOGNAME', 'USER', 'SHELL', 'PWD', 'OLDPWD', 'TMPDIR', 'MAIL',
               'DISPLAY', 'TERM', '_')
OF_THE_HOST_PREFIXES = ('SSH_', 'XDG_', 'DBUS_')
LOCAL_NAMES = ('localhost', '127.0.0.1')


class LaunchError(_supervise.Failure):
    """The job cannot be started as it was asked for; the text is a sentence for the user."""

    def __init__(self, text):
        super().__init__(text, status=2)


@dataclasses.dataclass
class Host:
    """A line of the hosts file: name for the remote shell, address for the job's own traffic."""
    name: str
    address: Optional[str] = None
    slots: Optional[int] = None

    @property
    def local(self):
        return self.name in LOCAL_NAMES


@dataclasses.dataclass
class Process:
    """A process of the job: where it runs, and what is particular to its environment."""
    name: str
    role: str
    host: int
    command: list
    environment: dict


def add_arguments(parser):
    """Declare the options of ``d2l launch``."""
    add = parser.add_argument
    add('-n', '--workers', type=int, default=1, metavar='N', help='processes that run the script')
    add('-s', '--servers', type=int, metavar='N',
        help='parameter servers (1), for dist_sync and dist_async')
    add('--store', choices=STORES, default='dist_sync', help='how workers share (%(default)s)')
    add('--hosts', metavar='FILE', help='a host a line: NAME [slots=WORKERS] [address=IP]')
    add('--max-restarts', type=int, default=3, metavar='N',
        help='how often the job starts again after a failure (%(default)s)')
    add('--start-timeout', type=float, default=120, metavar='SECONDS',
        help='for the job to form (%(default)g)')
    add('--step-timeout', type=float, default=600, metavar='SECONDS',
        help='for a step, or what is done between two (%(default)g)')
    add('--heartbeat-timeout', type=float, default=10, metavar='SECONDS',
        help='for a host that is silent or a process that is stopped (%(default)g)')
    add('--interface', metavar='NAME', help='the network interface for all traffic of the job; '
        'lo on one host, and on several the one of the name in the hosts file')
    add('--port', type=int, default=0, help='of the scheduler or of the ring (any free one)')
    add('--logs', metavar='FOLDER', help='the folder of the job (out/launch/DATE-TIME-NUMBER)')
    add('--tensorboard', action='store_true',
        help='write the progress for TensorBoard, into the folder of the job ([viz])')
    add('--status', metavar='FOLDER', help='print how the job with this folder stands, and exit')
    add('--ssh', default=SSH, metavar='COMMAND',
        help='called as COMMAND HOST PROGRAM ARGUMENTS (%(default)s)')
    add('--python', default=sys.executable, help='the interpreter on all hosts (this one)')
    add('--server', default=SERVER, metavar='MODULE',
        help='what servers and scheduler run (%(default)s)')
    add('script', nargs='?', metavar='script.py')
    add('arguments', nargs=argparse.REMAINDER, metavar='...', help='of the script')


def run(args):
    """Run the job of a command line.  Returns the exit status."""
    if args.status is not None:
        return _report.print_status(args.status)
    try:
        check(args)
        hosts = read_hosts(args.hosts) if args.hosts else [Host('localhost')]
        places = place_workers(args.workers, hosts)
        folder = os.path.abspath(args.logs or os.path.join(
            'out', 'launch', time.strftime('%Y%m%d-%H%M%S') + f'-{os.getpid()}'))
        report = _report.Report(folder, [args.script] + args.arguments, args.tensorboard)
    except ImportError as error:
        print("d2l launch: --tensorboard needs tensorboardX: pip install 'd2l-gluon[viz]' "
              f'({error})', file=sys.stderr)
        return 2
    except (LaunchError, OSError) as error:
        print(f'd2l launch: {error}', file=sys.stderr)
        return 2
    job = Job(args, hosts, places, folder)
    return _supervise.supervise(job, report)


def check(args):
    """Raise LaunchError for what is wrong before anything has been started."""
    if args.script is None:
        raise LaunchError('there must be a script to run: d2l launch -n 4 script.py')
    if not os.path.isfile(args.script):
        raise LaunchError(f'there is no script {args.script}')
    if args.store == 'horovod':
        raise LaunchError('--store horovod has a launcher of its own, which connects the workers: '
                          f'horovodrun -np {args.workers} python {args.script}; the like of it '
                          'here is --store ring')
    if args.workers < 1:
        raise LaunchError(f'-n must be at least 1, got {args.workers}')
    if args.store in PARAMETER_SERVER:
        args.servers = 1 if args.servers is None else args.servers
        if args.servers < 1:
            raise LaunchError(f'-s must be at least 1 for {args.store}, got {args.servers}')
    elif args.servers:
        raise LaunchError(f'-s must be left out for {args.store}, which has no servers')
    for name in ('max_restarts', 'port'):
        if getattr(args, name) < 0:
            raise LaunchError(f'--{name.replace("_", "-")} must not be negative, '
                              f'got {getattr(args, name)}')
    for name in ('start_timeout', 'step_timeout', 'heartbeat_timeout'):
        if not getattr(args, name) > 0:
            raise LaunchError(f'--{name.replace("_", "-")} must be positive, '
                              f'got {getattr(args, name):g}')


def read_hosts(path):
    """The hosts of a file: on each line a name, then slots=N and address=IP, both optional.

    What follows a # is a comment.  Raises LaunchError that names the line.
    """
    hosts = []
    try:
        with open(path, encoding='utf-8') as file:
            lines = list(file)
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(f'the hosts file {path} cannot be read: {error}') from error
    for number, line in enumerate(lines, 1):
        words = line.partition('#')[0].split()
        if not words:
            continue
        host = Host(words[0])
        for word in words[1:]:
            name, _, value = word.partition('=')
            if name == 'slots' and value.isdigit() and int(value):
                host.slots = int(value)
            elif name == 'address' and value:
                host.address = value
            else:
                raise LaunchError(f'{path}:{number}: slots=NUMBER or address=IP must follow the '
                                  f'name, got {word}')
        hosts.append(host)
    if not hosts:
        raise LaunchError(f'the hosts file {path} names no host')
    names = [host.name for host in hosts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise LaunchError(f'the hosts file {path} names {", ".join(twice)} twice: use slots=')
    return hosts


def place_workers(count, hosts):
    """The index of each worker's host: hosts are filled one after the other.

    A host without slots= takes an equal share of the workers that those with slots leave.
    """
    given = sum(host.slots or 0 for host in hosts)
    open_ended = [host for host in hosts if host.slots is None]
    if count > given and not open_ended:
        raise LaunchError(f'-n must be at most {given}, the slots of the hosts file, got {count}')
    rest, places = max(count - given, 0), []
    for index, host in enumerate(hosts):
        slots = host.slots
        if slots is None:
            slots = -(-rest // len(open_ended))
            rest -= slots
            open_ended.pop()
        places += [index] * slots
    return places[:count]


class Job:
    """What is to be started: hosts, processes, environment."""

    def __init__(self, args, hosts, places, folder):
        self.args, self.hosts, self.places, self.folder = args, hosts, places, folder
        self.synchronous = args.store not in ALONE + ('dist_async',)

    def agent_command(self, host, mark=None):
        """The command that starts the agent of a host; a remote one bears the mark."""
        command = [self.args.python, '-m', 'd2l.parallel._agent']
        if host.local:
            return command
        variables = {'PYTHONPATH': python_path(), _agent.MARK: mark}
        command[:0] = ['env', *[f'{name}={value}' for name, value in variables.items() if value]]
        return shlex.split(self.args.ssh) + [host.name] + [shlex.quote(word) for word in command]

    def agent_environment(self):
        """What the command that starts an agent finds in its environment."""
        return dict(os.environ, PYTHONPATH=python_path())

    def hello(self, index):
        """The question to an agent whether the job can run on its host."""
        host, interface, address = self.hosts[index], self.args.interface, None
        address = host.address
        if address is None and interface is None:
            if len(self.hosts) == 1 and host.local:
                interface = 'lo'
            else:
                address = resolve(host.name)
        return {'folder': os.getcwd(), 'script': self.args.script, 'interface': interface,
                'address': address, 'port': 0 if index else self.args.port,
                'patience': 0 if host.local else 3 * self.args.heartbeat_timeout}

    def environment(self, host):
        """What a host's processes have in common besides what their agent has already."""
        environment = {'D2L_JOB': self.folder, 'D2L_STORE': self.args.store,
                       'D2L_NUM_WORKERS': str(self.args.workers)}
        if host.local:
            return environment
        mine = {name: value for name, value in os.environ.items()
                if name not in OF_THE_HOST and not name.startswith(OF_THE_HOST_PREFIXES)}
        return dict(mine, PYTHONPATH=python_path(), **environment)

    def processes(self, addresses, port, restart):
        """All processes of the job; addresses are those of the hosts, port is free on the first."""
        check_addresses(self.hosts, addresses)
        python, found = self.args.python, []
        if self.args.store in PARAMETER_SERVER:
            command = [python, '-m', self.args.server]
            found.append(Process('scheduler', 'scheduler', 0, command, {'D2L_RANK': '0'}))
            for index in range(self.args.servers):
                found.append(Process(f'server {index}', 'server', index % len(self.hosts), command,
                                     {'D2L_RANK': str(index)}))
        worker = [python, '-m', 'd2l.parallel._worker', self.args.script]
        for rank, host in enumerate(self.places):
            local = rank - self.places.index(host)
            found.append(Process(f'worker {rank}', 'worker', host, worker + self.args.arguments,
                                 {'D2L_RANK': str(rank), 'D2L_LOCAL_RANK': str(local)}))
        for process in found:
            process.environment.update(self._store_variables(process, addresses, port))
            process.environment['D2L_RESTART'] = str(restart)
        return found

    def _store_variables(self, process, addresses, port):
        if self.args.store in PARAMETER_SERVER:
            return {'DMLC_ROLE': process.role, 'DMLC_PS_ROOT_URI': addresses[0],
                    'DMLC_PS_ROOT_PORT': str(port), 'DMLC_NUM_WORKER': str(self.args.workers),
                    'DMLC_NUM_SERVER': str(self.args.servers),
                    'DMLC_NODE_HOST': addresses[process.host],
                    'DMLC_USE_KUBERNETES': '0'}  # with it they would listen on all interfaces
        if self.args.store in ALONE:
            return {}
        return {'D2L_STORE_ADDRESS': f'{addresses[0]}:{port}',
                'D2L_ADDRESS': addresses[process.host]}


def python_path():
    """PYTHONPATH with the folder that this d2l lies in, unless it was installed."""
    folder = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = [entry for entry in os.environ.get('PYTHONPATH', '').split(os.pathsep) if entry]
    if os.path.basename(folder) not in ('site-packages', 'dist-packages') and folder not in path:
        path.append(folder)
    return os.pathsep.join(path)


def resolve(name):
    """The IPv4 address of a host's name.  Raises LaunchError."""
    try:
        return socket.gethostbyname(name.rpartition('@')[2])
    except OSError as error:
        raise LaunchError(f'the host {name} has no address: {error.strerror}. Give address=IP in '
                          'the hosts file, or --interface') from error


def check_addresses(hosts, addresses):
    """Raise LaunchError where hosts could not reach each other."""
    for host, address in zip(hosts, addresses):
        if len(hosts) > 1 and address.startswith('127.'):
            raise LaunchError(f'the host {host.name} has the address {address}, where other hosts '
                              'cannot reach it. Give address=IP in the hosts file, or --interface')
