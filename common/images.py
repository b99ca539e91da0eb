"""The pictures of a data set: which files of a folder they are, and what each is called from the .bin to the report.

A data set is a flat folder of images, or a folder of class folders. An image's name is its file's without the extension, other
dots being "_" (ais_bench cuts a result's name at the first one); where class folders hold equal names, it is FOLDER__NAME.
"""
import collections
import os
import unicodedata

from common.command import fail

EXTENSIONS = (".jpeg", ".jpg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's IMG_EXTENSIONS
LEFT_OUT = frozenset(EXTENSIONS + (".bin", ".npy"))  # of an image's name
NO_CLASSES = ("@eaDir", "#recycle", "__MACOSX", "lost+found")  # folders that file servers, unpackers and file systems add
LONGEST = 255 - len("_0.txt")  # bytes of a name whose result still has a file name


def name_of(file):
    """The name of an image, of its file name or path, with or without extension: "Dr. Smith 1.jpg" is "Dr_ Smith 1"."""
    file = file.replace("\\", "/").rpartition("/")[2]  # a list from Windows, or a picture of an archive that was packed there
    root, dot, extension = file.rpartition(".")
    while dot + extension.lower() in LEFT_OUT and root.strip("."):
        file = root
        root, dot, extension = file.rpartition(".")
    return file.replace(".", "_")


def key(name):
    """What a name is looked up by: a Mac's NFD and the others' NFC are one, and so is all white space."""
    return name if name.isascii() and name.isidentifier() else " ".join(unicodedata.normalize("NFC", name).split())


def class_folders(source):
    """Names of the folders in a folder that may be classes, sorted: neither hidden ones nor those that systems add."""
    return sorted(entry.name for entry in os.scandir(source)
                  if entry.is_dir() and not entry.name.startswith(".") and entry.name not in NO_CLASSES)


def is_image(folder, file):
    """Whether a file of a folder is a picture by its name, and not hidden or the report's own."""
    ours = file == "report.png" and os.path.exists(os.path.join(folder, "report.json"))
    return file.lower().endswith(EXTENSIONS) and not file.startswith(".") and not ours


def list_files(folder, source):
    """[(folder, file, whether it is an image)] of what lies in a class folder of source, or in source itself (folder "")."""
    path = os.path.join(source, folder)
    classes = class_folders(source) if not folder else ()
    return [(folder, file, is_image(path, file)) for file in sorted(os.listdir(path)) if file not in classes]


def name_all(files):
    """{name: (folder, file)} of such pairs, sorted by name; exits where two would have one name, or one is too long."""
    often, named, keys = collections.Counter(key(name_of(file)) for _, file in files), {}, {}
    for folder, file in files:
        name = name_of(labelled_as(folder, file) if folder and often[key(name_of(file))] > 1 else file)
        path = os.path.join(folder, file)
        if key(name) in keys:
            fail("%s and %s would both be called %s; rename or remove one" % (keys[key(name)], path, name))
        if len(os.fsencode(name)) > LONGEST:
            fail("%s: such a long name leaves no room for a result's, %s_0.txt; rename it" % (path, name))
        named[name], keys[key(name)] = (folder, file), path
    return dict(sorted(named.items()))


def labelled_as(folder, file):
    """The file name that stands for an image whose name other folders hold, too."""
    return "%s__%s" % (folder.replace(".", "_"), file)


def advice_below(source):
    """Which folder was meant, where it is not the source's folders but theirs that are the classes; or ""."""
    inside = [os.path.join(source, folder) for folder in sorted(class_folders(source), key=lambda folder: folder != "val")]
    meant = next(filter(class_folders, inside), None)
    return "; did you mean %s?" % meant if meant else ""


def find_images(source, own=None):
    """({name: absolute path} in order of the names, [names of files left aside]) of a data set.

    own: the folder to be written, which may be source or lie in it and is not looked through. Exits where there are no images.
    """
    own = own and os.path.realpath(own)
    found = list_files("", source)
    for folder in class_folders(source):
        if os.path.realpath(os.path.join(source, folder)) != own:
            found += list_files(folder, source)
    named = name_all([(folder, file) for folder, file, image in found if image])
    if not named:
        fail("%s: no images found (looked for %s there and in its folders)%s"
             % (source, " ".join(EXTENSIONS), advice_below(source)))
    paths = {name: os.path.abspath(os.path.join(source, *pair)) for name, pair in named.items()}
    left_aside = [file for folder, file, image in found if not image and (folder or os.path.realpath(source) != own)]
    return paths, left_aside
