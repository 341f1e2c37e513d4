"""The commands of `irjax`.

The command `irjax GROUP NAME`, or `irjax NAME`, is the dataclass called after its last word in the module called after
its first: `analyse scale-loss` is `irjax.commands.analyse.ScaleLoss`. Its fields are the flags, its docstring the help,
and its method `run` does it. The modules import nothing heavy at the top, only when they run; `irjax --help` needs
nothing but `COMMANDS`.
"""

# command: its line in the help of what is above it. `irjax train` runs what is in `irjax.experiments`.
COMMANDS = {
    "train": "train a method, your own or one of irjax's",
    "train adsnet": "ADSNet, from masks",
    "train mshnet": "MSHNet with a scale loss, from masks",
    "train na_irstd": "Na-IRSTD, from masks, in two stages",
    "train spire": "SPIRE, from points or masks",
    "train MODULE:ATTRIBUTE": "your own (docs/own-method.md), or the name by which its package registers it",
    "predict": "detect targets in image files",
    "app": "detect, look and correct points in a browser",
    "evaluate": "score the predictions of any program",
    "compare": "compare two prediction sets on the same images",
    "datasets": "prepare data sets, list the contents of a folder and its defects",
    "datasets build": "prepare a data set as ArrayRecord files, without TensorFlow",
    "datasets list": "list the data sets that can be prepared, or a folder's splits",
    "datasets inspect": "list the contents of a folder and its defects; draw its targets",
    "labels": "convert annotations: masks, points, boxes and polygons; COCO, YOLO, VOC, LabelMe, CSV",
    "benchmark": "time a detector and compare it with the machine's peak",
    "export": "write a detector as a program for other software",
    "models": "list the weights that ship with irjax and how they were made; share weights",
    "analyse": "analyse methods: scale losses, kept patches, relevance, ROC curves of several evaluations",
    "analyse scale-loss": "weight, loss and gradient of the scale losses against the predicted area",
    "analyse patches": "pictures of the patches that a network keeps",
    "analyse relevance": "what Na-IRSTD selects: coverage against K, relevance, features",
    "analyse roc": "the ROC curves of several evaluations in one picture",
}
