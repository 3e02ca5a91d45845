"""A box with things plugged in: files of /sys as Linux 6.12 shows them, on a `RecordedHost`."""

from __future__ import annotations

from edgerm.testing.hostfs import RecordedHost

CONTROLLER = "/sys/devices/pci0000:00/0000:00:14.0"
BUS = f"{CONTROLLER}/usb1"
CAMERA = "/sys/devices/platform/vivid.0"


class PluggedBox(RecordedHost):
    """At first with what every box has: a console, a root hub, serial ports without a chip, and one with it."""

    def __init__(self) -> None:
        super().__init__()
        self._class_link("/sys/devices/virtual/tty/tty1", "tty")
        self.put("/sys/devices/virtual/tty/tty1/uevent", "MAJOR=4\nMINOR=1\nDEVNAME=tty1\n")
        self._subsystem(CONTROLLER, "bus/pci")
        self._subsystem(BUS, "bus/usb")
        self._links["/sys/bus/usb/devices/usb1"] = BUS
        self._subsystem(f"{BUS}/1-0:1.0", "bus/usb")
        self._links["/sys/bus/usb/devices/1-0:1.0"] = f"{BUS}/1-0:1.0"
        self._uart("/sys/devices/pnp0/00:04", "bus/pnp", "ttyS0", "4")
        self._uart("/sys/devices/platform/serial8250", "bus/platform", "ttyS1", "0")

    def plug(self, port: str, serial: str = "", vendor: str = "0403", product: str = "6001", number: int = 2) -> str:
        """A USB device in a port ("2", "1.4"), the `number`-th of its bus; the path of its directory."""
        path = f"{BUS}/1-{port}"
        self._subsystem(path, "bus/usb")
        self._links[f"/sys/bus/usb/devices/1-{port}"] = path
        self.put(f"{path}/idVendor", f"{vendor}\n")
        self.put(f"{path}/idProduct", f"{product}\n")
        self.put(f"{path}/manufacturer", "ACME\n")
        self.put(f"{path}/product", "Serial Adapter\n")
        if serial:
            self.put(f"{path}/serial", f"{serial}\n")
        self.put(f"{path}/uevent", f"DEVTYPE=usb_device\nDEVNAME=bus/usb/001/{number:03}\nBUSNUM=001\n")
        return path

    def plug_serial(self, port: str, name: str, serial: str = "", product: str = "6001", number: int = 2) -> None:
        """An adapter with one serial port, of which the kernel makes a node."""
        path = self.plug(port, serial, product=product, number=number)
        adapter = f"{path}/1-{port}:1.0/{name}"
        self._subsystem(f"{path}/1-{port}:1.0", "bus/usb")
        self._subsystem(adapter, "bus/usb-serial")
        self.put(f"{adapter}/port_number", "0\n")
        self._class_link(f"{adapter}/tty/{name}", "tty")
        self._links[f"{adapter}/tty/{name}/device"] = adapter
        self.put(f"{adapter}/tty/{name}/uevent", f"MAJOR=188\nMINOR=0\nDEVNAME={name}\n")

    def plug_camera(self) -> None:
        """A camera with a stream of pictures and one of metadata, on no USB."""
        self._subsystem(CAMERA, "bus/platform")
        for index in (0, 1):
            path = f"{CAMERA}/video4linux/video{index}"
            self._class_link(path, "video4linux")
            self._links[f"{path}/device"] = CAMERA
            self.put(f"{path}/index", f"{index}\n")
            self.put(f"{path}/uevent", f"DEVNAME=video{index}\n")

    def pull(self, port: str) -> None:
        """Nothing is in the port any more."""
        path = f"{BUS}/1-{port}"
        self.remove(path)
        self._links = {
            at: target
            for at, target in self._links.items()
            if not f"{target}/".startswith(f"{path}/") and path not in at
        }

    def _uart(self, path: str, bus: str, name: str, chip: str) -> None:
        self._subsystem(path, bus)
        self._class_link(f"{path}/tty/{name}", "tty")
        self._links[f"{path}/tty/{name}/device"] = path
        self.put(f"{path}/tty/{name}/type", f"{chip}\n")
        self.put(f"{path}/tty/{name}/uevent", f"DEVNAME={name}\n")

    def _class_link(self, path: str, name: str) -> None:
        self._subsystem(path, f"class/{name}")
        self._links[f"/sys/class/{name}/{path.rpartition('/')[2]}"] = path

    def _subsystem(self, path: str, name: str) -> None:
        """Also a file, so that the directory is one."""
        self._links[f"{path}/subsystem"] = f"/sys/{name}"
        self.put(f"/sys/{name}/uevent", "")
        self.put(f"{path}/power/control", "auto\n")
